package guard

import (
	"fmt"
	"os"
	"testing"
	"time"

	"mailreeve/protocol"
)

// durable are a server's settings with which a kill loses nothing.
var durable = []string{"--appendonly", "yes", "--appendfsync", "always"}

// restart starts a node again: after kill -9, or as told to.
func (n *node) restart(crash bool) *node {
	n.Helper()
	dir := n.dir
	if crash {
		dir = n.crash(dir)
	} else {
		n.stop()
	}
	return startNode(n.T, n.opt.Store.GuessKey, dir, n.opt.Store.SharedStoreConfig, nil, n.opt.Now)
}

func (n *node) bans(target string) {
	n.Helper()
	if _, err := n.g.AddBan(BanRequest{Target: target, Reason: "by hand"}); err != nil {
		n.Fatal(err)
	}
}

func (n *node) unbans(target string) {
	n.Helper()
	if _, err := n.g.Unban(UnbanRequest{Target: target}); err != nil {
		n.Fatal(err)
	}
}

// aMomentLater waits until it is later at all nodes than it was at any: what they
// know of the fleet's clock is off by some milliseconds.
func aMomentLater(t *testing.T) {
	t.Helper()
	start := time.Now()
	eventually(t, 10*time.Second, "time goes by", func() bool { return time.Since(start) > 200*time.Millisecond })
}

// unsent counts what a node's outbox has on disk.
func (n *node) unsent() int {
	n.Helper()
	c := newCounting()
	if err := readBucket(n.g.writer.disk.db, bucketOutbox, c, 1); err != nil {
		n.Fatal(err)
	}
	return c.taken[bucketOutbox]
}

// What a node decided while the store was away it tells when that is back, also
// if it was killed or stopped in between, and if the store has been emptied.
func TestWhatWasDecidedInAnOutageSurvivesARestart(t *testing.T) {
	for _, crash := range []bool{true, false} {
		for _, flushed := range []bool{false, true} {
			t.Run(fmt.Sprintf("crash %v, flushed %v", crash, flushed), func(t *testing.T) {
				t.Parallel()
				srv := startServer(t, durable...)
				if flushed {
					srv.args = nil
				}
				nodes := fleetOf(t, 2, srv.shared(), nil)
				one, two := nodes[0], nodes[1]
				one.bans("192.0.2.1")
				one.bans("192.0.2.3")
				two.bans("192.0.2.4")
				for _, target := range []string{"198.51.100.0/24", "203.0.113.0/24"} {
					if _, err := one.g.Allow(AllowRequest{Target: target}); err != nil {
						t.Fatal(err)
					}
				}
				one.guesses("192.0.2.9", "alice", 3)
				two.guesses("192.0.2.9", "bob", 3)
				two.comesTo("192.0.2.3", protocol.Banned)
				one.comesTo("192.0.2.4", protocol.Banned)
				eventually(t, 10*time.Second, "both allow entries are there", func() bool { return len(two.g.Allowed()) == 2 })

				srv.kill()
				two.bans("192.0.2.4") // longer, but before it is forgiven at the other
				one.unbans("192.0.2.1")
				one.unbans("192.0.2.3")
				one.unbans("192.0.2.4")
				one.unbans("192.0.2.9") // its points
				one.bans("192.0.2.2")
				if n, err := one.g.Disallow("198.51.100.0/24"); n != 1 || err != nil {
					t.Fatal(n, err)
				}
				if _, err := one.g.Allow(AllowRequest{Target: "192.0.2.128/25", Reason: "office"}); err != nil {
					t.Fatal(err)
				}
				one.away()
				aMomentLater(t)
				two.bans("192.0.2.3")              // later than the other's word
				two.guesses("192.0.2.9", "bob", 1) // later than it was forgiven
				again := one.restart(crash)
				again.admits(from("192.0.2.1"), protocol.Pass)

				srv.start()
				again.back()
				two.back()
				fresh := startNode(t, one.opt.Store.GuessKey, t.TempDir(), srv.shared(), nil, nil)
				fresh.synced()
				for _, n := range []*node{again, two, fresh} {
					for addr, want := range map[string]protocol.Verdict{
						"192.0.2.1": protocol.Pass, "192.0.2.2": protocol.Banned, "192.0.2.3": protocol.Banned, "192.0.2.4": protocol.Pass,
					} {
						n.comesTo(addr, want)
					}
					eventually(t, 10*time.Second, "the allow entries are those of after the change", func() bool {
						a := n.g.Allowed()
						return len(a) == 2 && a[0].Reason == "office" && a[1].Prefix.String() == "203.0.113.0/24"
					})
					if flushed {
						continue // two refills the store, which cannot say any more what was forgiven
					}
					eventually(t, 10*time.Second, "one point since it was forgiven", func() bool { return n.points("192.0.2.9") == 1 })
				}
				if b := fresh.g.Bans(BanFilter{Rule: manualRule}); len(b) != 2 || b[0].Reason != "by hand" {
					t.Errorf("the ban of the outage is %+v at another node", b)
				}
			})
		}
	}
}

// A node that dies after the store has taken a change, but before it has taken
// note of that, tells it twice. What another has said since is not overruled.
func TestWhatIsToldTwiceOverrulesNothing(t *testing.T) {
	t.Parallel()
	nodes := fleetOf(t, 2, startServer(t).shared(), nil)
	one, two := nodes[0], nodes[1]
	one.bans("192.0.2.1")
	two.comesTo("192.0.2.1", protocol.Banned)
	one.unbans("192.0.2.1")
	two.comesTo("192.0.2.1", protocol.Pass)
	again := one.restart(true)
	again.back()
	two.bans("192.0.2.1")
	again.comesTo("192.0.2.1", protocol.Banned)
	last := again.restart(true)
	last.back()
	last.comesTo("192.0.2.1", protocol.Banned)
	two.admits(from("192.0.2.1"), protocol.Banned)
}

// An entry goes when the store has had the change for a while, when another node
// has said something later, and when what it is about is over.
func TestTheOutboxEmpties(t *testing.T) {
	t.Parallel()
	srv := startServer(t, durable...)
	ahead := time.Duration(0)
	now := func() time.Time { return time.Now().Add(ahead) }
	one := startNode(t, "", t.TempDir(), srv.shared(), nil, now)
	one.synced()
	box := one.g.fleet.share.outbox
	one.bans("192.0.2.1")
	one.unbans("192.0.2.1")
	one.back()
	box.sweep(time.Now().Add(resendWithin / 2))
	one.written()
	if n := one.unsent(); n != 2 { // the address, and that it is forgiven
		t.Errorf("%d entries right after a change, want 2", n)
	}
	box.sweep(time.Now().Add(resendWithin + time.Second))
	one.written()
	if n := one.unsent(); n != 0 {
		t.Errorf("%d entries when the store has had it for long, want none", n)
	}

	two := startNode(t, one.opt.Store.GuessKey, t.TempDir(), srv.shared(), nil, nil)
	two.synced()
	allow := func(n *node, reason string) {
		if _, err := n.g.Allow(AllowRequest{Target: "203.0.113.0/24", Reason: reason}); err != nil {
			t.Fatal(err)
		}
	}
	srv.kill()
	one.bans("192.0.2.2")
	allow(one, "early")
	one.away()
	aMomentLater(t)
	banned := sentenceKey{kind: banned, scope: "all", key: key{kind: byAddress, prefix: mustAddr("192.0.2.2")}}
	// As if an earlier word of that ban had just been taken.
	one.g.fleet.share.taken([]record{{bucket: bucketBans, key: banned.storeKey()}})
	box.sweep(time.Now().Add(time.Hour))
	one.written()
	if n := one.unsent(); n != 2 {
		t.Errorf("%d entries of what the store was not told, want 2", n)
	}
	two.bans("192.0.2.2") // later
	allow(two, "late")
	again := one.restart(true)
	srv.start()
	two.back()
	again.back()
	id := func(n *node) stamp {
		v := n.g.fleet.share.versions
		e, _ := v.get(versionID(v, banned))
		return e.stamp()
	}
	eventually(t, 10*time.Second, "the later ban and the later entry are known", func() bool {
		a := again.g.Allowed()
		return id(again) == id(two) && len(a) == 1 && a[0].Reason == "late"
	})
	again.written()
	if n := again.unsent(); n != 0 {
		t.Errorf("%d entries of what another node has overruled, want none", n)
	}

	srv.kill()
	again.bans("192.0.2.5")
	again.away()
	again.g.expire(time.Now().Add(100 * 24 * time.Hour).UnixMilli())
	again.g.expire(time.Now().Add(200 * 24 * time.Hour).UnixMilli())
	again.written()
	if n, s := again.unsent(), again.g.Status().Store.Shared; n != 0 || s.Pending != 0 {
		t.Errorf("%d entries and %d records of bans whose history is over, want none", n, s.Pending)
	}
}

// A failover may lose that something was taken back: the ban is there again, or
// nothing is, and a node that was off meanwhile brings it.
func TestARemovalThatAFailoverLostIsToldAgain(t *testing.T) {
	for name, late := range map[string]bool{"at once": false, "long after": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := startServer(t, durable...)
			one := fleetOf(t, 1, srv.shared(), nil)[0]
			if late {
				one.bans("192.0.2.1")
				one.back()
			}
			c := srv.client(t)
			beats := func() int64 {
				n, _ := redisCLI(t, c, "GET", one.g.fleet.beats[0]).AsInt64()
				return n
			}
			lagging, copied := t.TempDir(), beats()
			if err := os.CopyFS(lagging, os.DirFS(srv.dir)); err != nil {
				t.Fatal(err)
			}
			one.bans("192.0.2.1")
			one.unbans("192.0.2.1")
			one.back()
			if late {
				one.g.fleet.share.outbox.sweep(time.Now().Add(resendWithin + time.Second))
				eventually(t, 10*time.Second, "signs of life are lost, too", func() bool { return beats() > copied+2 })
			}
			srv.kill()
			one.away()
			srv.dir = lagging
			srv.start()
			one.back()
			c = srv.client(t)
			eventually(t, 10*time.Second, "the store knows that the ban was taken back", func() bool {
				r := c.Do(t.Context(), c.B().Hget().Key(names{"mailreeve:"}.history("blocked-ip.192.0.2.1")).Field("all").Build())
				text, err := r.ToString()
				if err != nil {
					return false
				}
				s := storedRecord("blocked-ip.192.0.2.1", "all", text)
				h, err := readHistory(s.Name, s.Field, s.stamp(), s.History, 0, plainText)
				return err == nil && h.forgotten
			})
			fresh := startNode(t, one.opt.Store.GuessKey, t.TempDir(), srv.shared(), nil, nil)
			fresh.synced()
			fresh.admits(from("192.0.2.1"), protocol.Pass)
			one.admits(from("192.0.2.1"), protocol.Pass)
		})
	}
}

// Two nodes change one ban in one millisecond, unaware of each other: all nodes
// end with what the node with the larger number said, whichever is heard first.
func TestChangesOfOneMillisecondEndTheSameEverywhere(t *testing.T) {
	for _, winnerBans := range []bool{true, false} {
		for _, winnerFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("the winner bans %v, and is first %v", winnerBans, winnerFirst), func(t *testing.T) {
				t.Parallel()
				srv := startServer(t, durable...)
				nodes := fleetOf(t, 2, srv.shared(), nil)
				winner, loser := nodes[0], nodes[1]
				if winner.g.fleet.share.versions.node < loser.g.fleet.share.versions.node {
					winner, loser = loser, winner
				}
				winner.bans("192.0.2.1")
				loser.comesTo("192.0.2.1", protocol.Banned)
				winner.back()
				srv.kill()
				k := sentenceKey{kind: banned, scope: "all", key: key{kind: byAddress, prefix: mustAddr("192.0.2.1")}}
				soon := time.Now().Add(time.Minute).UnixMilli() // the next change is one after it
				for _, n := range nodes {
					v := n.g.fleet.share.versions
					v.heard(versionID(v, k), stamp{at: soon, node: 1}, 0, false)
				}
				want := protocol.Pass
				if winnerBans {
					want = protocol.Banned
					winner.bans("192.0.2.1")
					loser.unbans("192.0.2.1")
				} else {
					loser.bans("192.0.2.1")
					winner.unbans("192.0.2.1")
				}
				first, second := winner, loser
				if !winnerFirst {
					first, second = loser, winner
				}
				first.away()
				second.away()
				second.stop()
				srv.start()
				first.back()
				second = second.restart(false)
				second.back()
				fresh := startNode(t, first.opt.Store.GuessKey, t.TempDir(), srv.shared(), nil, nil)
				fresh.synced()
				for _, n := range []*node{first, second, fresh} {
					n.comesTo("192.0.2.1", want)
				}
			})
		}
	}
}
