package guard

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailreeve/protocol"
)

// away and back wait until a node knows that the store is, and has been told
// everything.
func (n *node) away() {
	n.Helper()
	eventually(n.T, 20*time.Second, "the node knows that the store is away", func() bool { return !n.g.Status().Store.Shared.Connected })
}

func (n *node) back() {
	n.Helper()
	eventually(n.T, 20*time.Second, "the store is back", func() bool {
		s := n.g.Status().Store.Shared
		return s.Connected && s.Buffered == 0 && s.Pending == 0
	})
}

// points gives an address's points under the rule authentication, as the store
// has them.
func (n *node) points(addr string) float64 { return n.pointsUnder("authentication", addr) }

func (n *node) pointsUnder(rule, addr string) float64 {
	n.Helper()
	for _, s := range n.g.scores(n.g.set.Load(), key{kind: byAddress, prefix: mustAddr(addr)}, n.g.clock.now()) {
		if s.Rule == rule {
			return s.Points
		}
	}
	return 0
}

func mustAddr(s string) netip.Prefix {
	a := netip.MustParseAddr(s)
	return netip.PrefixFrom(a, a.BitLen())
}

// faults are ways in which the store goes away and comes back.
var faults = map[string]struct {
	args       []string // of the server
	begin, end func(*testing.T, *server)
	empty      bool // it comes back with nothing
}{
	"killed": {
		begin: func(_ *testing.T, s *server) { s.kill() },
		end:   func(_ *testing.T, s *server) { s.start() },
		empty: true,
	},
	"killed, with a file": {
		args:  []string{"--appendonly", "yes", "--appendfsync", "always"},
		begin: func(_ *testing.T, s *server) { s.kill() },
		end:   func(_ *testing.T, s *server) { s.start() },
	},
	"stopped": {
		begin: func(_ *testing.T, s *server) { s.signal(syscall.SIGSTOP) },
		end:   func(_ *testing.T, s *server) { s.signal(syscall.SIGCONT) },
	},
	"full": {
		begin: func(t *testing.T, s *server) { redisCLI(t, s.client(t), "CONFIG", "SET", "maxmemory", "1") },
		end:   func(t *testing.T, s *server) { redisCLI(t, s.client(t), "CONFIG", "SET", "maxmemory", "0") },
	},
	"read only": {
		begin: func(t *testing.T, s *server) { redisCLI(t, s.client(t), "REPLICAOF", "127.0.0.1", "1") },
		end:   func(t *testing.T, s *server) { redisCLI(t, s.client(t), "REPLICAOF", "NO", "ONE") },
	},
	"without permission": {
		begin: func(t *testing.T, s *server) { redisCLI(t, s.client(t), "ACL", "SETUSER", "default", "-@scripting") },
		end:   func(t *testing.T, s *server) { redisCLI(t, s.client(t), "ACL", "SETUSER", "default", "+@all") },
	},
}

// Whatever keeps the store away, each node goes on alone, and when it is back
// everything decided is in it, once.
func TestTheStoreGoesAwayAndComesBack(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := startServer(t, f.args...)
			store := srv.shared()
			store.Timeout = Duration(200 * time.Millisecond)
			nodes := fleetOf(t, 2, store, nil)
			one, two := nodes[0], nodes[1]
			one.logsIn("198.51.100.7", "owner")
			one.g.flush()
			one.earnsABan("192.0.2.3", "carol") // a ban from before
			two.comesTo("192.0.2.3", protocol.Banned)
			one.guesses("192.0.2.1", "alice", 3)
			two.guesses("192.0.2.1", "bob", 2)
			flying, _ := one.ask(from("192.0.2.1"), plain("dave", "in flight"))

			f.begin(t, srv)
			one.guesses("192.0.2.1", "eve", 2)
			one.g.Settle(flying, protocol.Failure, "535 5.7.8")
			one.earnsABan("192.0.2.5", "frank") // bans alone
			two.earnsABan("192.0.2.6", "frank")
			one.away()
			two.away()
			for _, n := range nodes {
				n.admits(from("192.0.2.3"), protocol.Banned) // the last known
			}
			one.admits(from("192.0.2.5"), protocol.Banned)
			start := time.Now()
			if a, _ := one.g.Attempt(context.Background(), from("203.0.113.9"), plain("grace", "x")); a != nil {
				one.g.Settle(a, protocol.Success, "")
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("a login took %v while the store was known to be away", took)
			}

			f.end(t, srv)
			one.back()
			two.back()
			for _, n := range nodes {
				for _, addr := range []string{"192.0.2.3", "192.0.2.5", "192.0.2.6"} {
					n.comesTo(addr, protocol.Banned)
				}
				eventually(t, 10*time.Second, "8 points, each counted once", func() bool { return n.points("192.0.2.1") == 8 })
			}
			c := srv.client(t)
			for _, addr := range []string{"192.0.2.3", "192.0.2.5", "192.0.2.6"} {
				eventually(t, 10*time.Second, addr+" is blocked in the store", func() bool {
					n, _ := redisCLI(t, c, "EXISTS", "mailreeve:blocked-ip."+addr).AsInt64()
					return n == 1
				})
			}
			eventually(t, 10*time.Second, "the familiar place is in the store", func() bool {
				n, _ := redisCLI(t, c, "EXISTS", "mailreeve:places.owner").AsInt64()
				return n == 1
			})
			if got, want := two.guesses("192.0.2.1", "henry", 10), 2; got != want {
				t.Errorf("%d more guesses, want %d", got, want)
			}
			one.comesTo("192.0.2.1", protocol.Banned)
			for _, n := range nodes {
				if away, back := n.said.times("the store is away"), n.said.times("the store is back"); away != 1 || back != 1 {
					t.Errorf("said %d times that it is away and %d times that it is back:\n%s", away, back, n.said.text.String())
				}
			}
		})
	}
}

func TestAFlushedStoreIsRefilled(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	nodes := fleetOf(t, 2, srv.shared(), nil)
	one, two := nodes[0], nodes[1]
	one.logsIn("198.51.100.7", "owner")
	one.g.flush()
	one.earnsABan("192.0.2.3", "carol")
	two.comesTo("192.0.2.3", protocol.Banned)
	one.guesses("192.0.2.1", "alice", 3)
	two.guesses("192.0.2.1", "bob", 4)
	one.guesses("192.0.2.2", "alice", 3)
	two.guesses("192.0.2.2", "bob", 4)
	one.unbans("192.0.2.2")
	aMomentLater(t)
	two.guesses("192.0.2.2", "bob", 1)
	eventually(t, 10*time.Second, "one point since it was forgiven", func() bool { return one.points("192.0.2.2") == 1 })
	if _, err := two.g.Allow(AllowRequest{Target: "203.0.113.0/24", For: Forever}); err != nil {
		t.Fatal(err)
	}
	c := srv.client(t)
	redisCLI(t, c, "FLUSHALL")
	for _, key := range []string{"blocked-ip.192.0.2.3", "places.owner", "allowed-ip.203.0.113.0/24"} {
		eventually(t, 10*time.Second, key+" is back", func() bool {
			n, _ := redisCLI(t, c, "EXISTS", "mailreeve:"+key).AsInt64()
			return n == 1
		})
	}
	for _, n := range nodes {
		eventually(t, 10*time.Second, "7 points, each counted once", func() bool { return n.points("192.0.2.1") == 7 })
		n.admits(from("192.0.2.3"), protocol.Banned)
		eventually(t, 10*time.Second, "what was forgiven is not counted again", func() bool { return n.points("192.0.2.2") == 1 })
	}
	// A new node learns it all from the store.
	third := startNode(t, one.opt.Store.GuessKey, t.TempDir(), srv.shared(), nil, nil)
	third.comesTo("192.0.2.3", protocol.Banned)
}

func TestAWrongPasswordIsSaidAndTheNodeGoesOnAlone(t *testing.T) {
	t.Parallel()
	srv := startServer(t, "--requirepass", "right")
	store := srv.shared()
	store.Password = "not this one"
	dir := t.TempDir()
	n := startNode(t, "", dir, store, nil, nil)
	n.away()
	if got := n.guesses("192.0.2.1", "alice", 20); got != 10 {
		t.Errorf("%d guesses alone, want 10", got)
	}
	n.admits(from("192.0.2.1"), protocol.Banned)
	if text := n.said.text.String(); !strings.Contains(text, "WRONGPASS") || strings.Contains(text, "not this one") {
		t.Errorf("the log says %s", text)
	}
	// With the right password after a restart nothing is lost.
	n.stop()
	store.Password = "right"
	n = startNode(t, "", dir, store, nil, nil)
	n.admits(from("192.0.2.1"), protocol.Banned)
	n.back()
	other := startNode(t, "", t.TempDir(), store, nil, nil)
	other.comesTo("192.0.2.1", protocol.Banned)
}

func TestClocksThatDifferMakeNoDifference(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	ahead := func() time.Time { return time.Now().Add(3 * time.Hour) }
	one := startNode(t, "", t.TempDir(), srv.shared(), nil, nil)
	two := startNode(t, one.opt.Store.GuessKey, t.TempDir(), srv.shared(), nil, ahead)
	one.synced()
	two.synced()
	for i := range 10 {
		n := []*node{one, two}[i%2]
		n.guesses("192.0.2.1", fmt.Sprint("user", i%5), 1)
	}
	one.comesTo("192.0.2.1", protocol.Banned)
	two.comesTo("192.0.2.1", protocol.Banned)
	for _, n := range []*node{one, two} {
		b := n.g.Bans(BanFilter{})
		if len(b) != 1 {
			t.Fatalf("bans %+v", b)
		}
		if left := b[0].Until.Sub(n.g.clock.now()); left < 59*time.Minute || left > time.Hour+time.Second {
			t.Errorf("the ban ends in %v by the node's own clock, want an hour", left)
		}
	}
}

// What does not belong into the store is ignored, and said.
func TestHostileValuesAreIgnored(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	c := srv.client(t)
	good := startNode(t, "", t.TempDir(), srv.shared(), nil, nil)
	good.synced()
	good.earnsABan("192.0.2.3", "carol")
	good.guesses("192.0.2.1", "alice", 3)
	put := func(name, field, value string) {
		redisCLI(t, c, "HSET", "mailreeve:"+name, field, value)
		redisCLI(t, c, "ZADD", names{"mailreeve:"}.index(name), "9e15", name)
	}
	history := func(name, field, value string) {
		redisCLI(t, c, "HSET", names{"mailreeve:"}.history(name), field, value)
		redisCLI(t, c, "ZADD", names{"mailreeve:"}.index(name), "9e15", name)
	}
	ban := func(prefix string, edit func(*sentence)) string {
		s := &sentence{cause: cause{rule: "x"}, since: 1, until: forever, forget: forever, repeats: 1, active: true}
		s.sentenceKey = sentenceKey{kind: banned, scope: "all", key: key{kind: byNetwork, prefix: netip.MustParsePrefix(prefix)}}
		edit(s)
		return string(appendHistory(nil, s.sentenceKey, s, 0))
	}
	asItIs := func(*sentence) {}
	history("blocked-ip.0.0.0.0/0", "all", "7 1 "+ban("0.0.0.0/0", asItIs))
	history("blocked-ip.8.0.0.0/7", "all", "7 1 "+ban("8.0.0.0/7", asItIs))
	history("blocked-ip.::/0", "all", "7 1 "+ban("::/0", asItIs))
	history("blocked-ip.198.51.100.0/24", "all", "7 1 "+ban("203.0.113.0/24", asItIs))
	history("blocked-ip.192.0.2.73", "auth", "7 1 "+ban("192.0.2.73/32", asItIs))
	history("blocked-ip.192.0.2.74", "all", "7 1 "+ban("192.0.2.74/32", asItIs)[:20])
	history("blocked-ip.192.0.2.75", "all", "7 1 "+ban("192.0.2.75/32", func(s *sentence) { s.reason = strings.Repeat("x", maxReason+1) }))
	history("blocked-ip.192.0.2.76", "all", "7 1 "+ban("192.0.2.76/32", func(s *sentence) { s.score = maxScore + 1 }))
	history("blocked-ip.192.0.2.77", "all", "-1 1 "+ban("192.0.2.77/32", asItIs))
	history("blocked-ip.192.0.2.78", "all", "soon 1 "+ban("192.0.2.78/32", asItIs))
	history("blocked-ip.192.0.2.79", "all", "9007199254740993 1 "+ban("192.0.2.79/32", asItIs))
	history("blocked-ip.192.0.2.80", "all", "7 "+ban("192.0.2.80/32", asItIs))
	history("blocked-ip.192.0.2.81", "all", "7 4294967296 "+ban("192.0.2.81/32", asItIs))
	const year50000 = 1_515_000_000_000_000 // which JSON does not have
	history("blocked-ip.192.0.2.82", "all", "7 1 "+ban("192.0.2.82/32", func(s *sentence) { s.until = year50000 }))
	history("blocked-ip.192.0.2.83", "all", "7 1 "+ban("192.0.2.83/32", func(s *sentence) { s.since = -year50000 }))
	history("blocked-ip.nonsense", "all", "\x00\xff{")
	put("places.%zz", "192.0.2.0/24", "1")
	put("places.owner", "everywhere", "soon")
	history("allowed-ip.0.0.0.0", "command", `7 1 {"prefix":"0.0.0.0/0"}`)
	history("allowed-ip.192.0.2.10", "command", `7 1 {"prefix":"192.0.2.10/32","until":"9999-12-31T00:00:00Z"}`)
	history("allowed-ip.192.0.2.9", "command", `-7 1 {"prefix":"192.0.2.9/32"}`)
	put("what.ever", "x", "y")
	redisCLI(t, c, "SET", names{"mailreeve:"}.history("blocked-ip.192.0.2.88"), "a string")
	redisCLI(t, c, "ZADD", names{"mailreeve:"}.index("blocked-ip.192.0.2.88"), "9e15", "blocked-ip.192.0.2.88")
	redisCLI(t, c, "XADD", "mailreeve:changes", "*", "by", "someone", "r", "{{{")
	redisCLI(t, c, "XADD", "mailreeve:changes", "*", "nothing", "known")
	redisCLI(t, c, "XADD", "mailreeve:changes", "*", "by", "someone", "r", `{"n":"blocked-ip.::/0","f":"all","v":1,"j":"{}","h":"AAAA"}`)
	redisCLI(t, c, "SET", "mailreeve:points-ip.{192.0.2.0/24}.192.0.2.9", "not a hash")
	redisCLI(t, c, "HSET", "mailreeve:points-ip.{192.0.2.0/24}.192.0.2.8", "s", "\x92\x91\x93garbage")

	fresh := startNode(t, "", t.TempDir(), srv.shared(), nil, nil)
	fresh.synced()
	fresh.comesTo("192.0.2.3", protocol.Banned)
	for _, n := range []*node{good, fresh} {
		for _, addr := range []string{"203.0.113.5", "198.51.100.5", "192.0.2.73", "192.0.2.74",
			"192.0.2.75", "192.0.2.76", "192.0.2.77", "192.0.2.78", "192.0.2.79", "192.0.2.80", "192.0.2.81", "192.0.2.82", "192.0.2.83", "192.0.2.88", "8.8.8.8", "2001:db8::1"} {
			n.admits(from(addr), protocol.Pass)
		}
		if len(n.g.Allowed()) != 0 {
			t.Errorf("allowed: %+v", n.g.Allowed())
		}
	}
	for _, addr := range []string{"192.0.2.9", "192.0.2.8"} {
		if got := fresh.guesses(addr, "user"+addr, 20); got != 10 {
			t.Errorf("%d guesses from %s, want 10", got, addr)
		}
	}
	if fresh.said.times("make no sense") != 1 || fresh.g.Status().Store.Shared.Ignored == 0 {
		t.Errorf("ignored %d values; said: %s", fresh.g.Status().Store.Shared.Ignored, fresh.said.text.String())
	}
}
