package guard

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/valkey-io/valkey-go"
)

// The store draws tickets as memory does: the same draws of the same networks
// at the same times, with the same chance, give the same answers.
func TestTheStoreDrawsTicketsAsMemoryDoes(t *testing.T) {
	c := startServer(t).client(t)
	s := newScript(recordsScript)
	rapid.Check(t, func(t *rapid.T) {
		every := time.Duration(rapid.SampledFrom([]int{1, 5, 60}).Draw(t, "minutes")) * time.Minute
		here := &trickle{}
		there := storeTrickle{c: c, script: s, key: "test-" + newID() + ":trickle.{alice}", every: every}
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
		networks := []string{"192.0.2.0/24", "198.51.100.0/24", "2001:db8::/48"}
		t.Repeat(map[string]func(*rapid.T){
			"a moment passes": func(t *rapid.T) { now += rapid.Int64Range(0, every.Milliseconds()/2).Draw(t, "ms") },
			"a day passes": func(t *rapid.T) {
				now += trickleBlocked.Milliseconds() + rapid.Int64Range(-1, 1).Draw(t, "ms")
			},
			"a network asks": func(t *rapid.T) {
				network := rapid.SampledFrom(networks).Draw(t, "network")
				known := rapid.Bool().Draw(t, "known")
				chance := []float64{
					float64(rapid.IntRange(0, 999_999).Draw(t, "chance")) / 1e6,
					float64(rapid.IntRange(0, 999_999).Draw(t, "chance of the known")) / 1e6,
				}
				drawn := 0
				want := here.draw(now, &ticketAsk{login: "alice", network: network, known: known, every: every}, func() float64 { drawn++; return chance[drawn-1] })
				if got := there.draw(t, now, network, known, chance); got != want {
					t.Fatalf("%s (known %v) at %d gets a ticket: %v from the store, %v from memory", network, known, now, got, want)
				}
			},
			"a network fails": func(t *rapid.T) {
				network := rapid.SampledFrom(networks).Draw(t, "network")
				here.fail(now, network)
				there.fail(t, now, network)
			},
		})
	})
}

// Of more networks than are remembered both forget the one that failed first.
func TestTheStoreForgetsTheFirstOfTooManyNetworks(t *testing.T) {
	c := startServer(t).client(t)
	there := storeTrickle{c: c, script: newScript(recordsScript), key: "test:trickle.{alice}", every: time.Minute}
	here := &trickle{}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	network := func(i int) string { return fmt.Sprintf("10.%d.%d.0/24", i>>8, i&0xff) }
	for i := range maxTrickleNets + 3 {
		now++
		here.fail(now, network(i))
		there.fail(t, now, network(i))
	}
	for i := range maxTrickleNets + 3 {
		_, want := here.failed[network(i)]
		got, err := redisCLI(t, c, "HEXISTS", there.key, "failed:"+network(i)).AsBool()
		if err != nil || got != want || want != (i >= 3) {
			t.Fatalf("network %d is remembered: %v by the store (%v), %v by memory, want %v", i, got, err, want, i >= 3)
		}
	}
}

// Who unbans a guarded login, or a network, pardons the networks that used a
// ticket in vain before: in the store and at all nodes, and also if the store is
// away at the time.
func TestAnUnbanPardonsATricklesNetworks(t *testing.T) {
	unbans := func(n *node) {
		n.unbans("alice")
		n.unbans("198.51.100.0/24")
	}
	for name, unban := range map[string]func(*server, *node) *node{
		"while the store is there": func(_ *server, one *node) *node {
			unbans(one)
			return one
		},
		"while the store is away": func(srv *server, one *node) *node {
			srv.signal(syscall.SIGSTOP)
			defer srv.signal(syscall.SIGCONT)
			one.away()
			unbans(one)
			return one
		},
		"before a restart while the store is away": func(srv *server, one *node) *node {
			srv.signal(syscall.SIGSTOP)
			defer srv.signal(syscall.SIGCONT)
			one.away()
			unbans(one)
			return one.restart(true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := startServer(t)
			nodes := fleetOf(t, 2, srv.shared(), nil)
			one, two := nodes[0], nodes[1]
			fails := func(n *node, login, network string) { n.g.ledger.ticketFailed(n.g.clock.now(), login, network) }
			fails(one, "alice", "192.0.2.0/24")
			fails(two, "alice", "203.0.113.0/24")
			fails(two, "bob", "198.51.100.0/24")
			fails(two, "bob", "203.0.113.0/24")
			aMomentLater(t)
			one = unban(srv, one)
			one.back()
			two.back()
			aMomentLater(t)
			fails(two, "alice", "2001:db8::/48") // since then
			c := srv.client(t)
			for login, want := range map[string]string{"alice": "[failed:2001:db8::/48]", "bob": "[failed:203.0.113.0/24]"} {
				eventually(t, 10*time.Second, "the store has of "+login+" "+want, func() bool {
					fields, err := redisCLI(t, c, "HKEYS", "mailreeve:trickle.{"+login+"}").AsStrSlice()
					return err == nil && fmt.Sprint(fields) == want
				})
				eventually(t, 10*time.Second, "the other node has of "+login+" "+want, func() bool {
					two.g.memory.mu.Lock()
					defer two.g.memory.mu.Unlock()
					var failed []string
					for network := range two.g.memory.trickles[login].failed {
						failed = append(failed, "failed:"+network)
					}
					return fmt.Sprint(failed) == want
				})
			}
		})
	}
}

// A fataler is a test, or a round of a property test.
type fataler interface{ Fatal(...any) }

// A storeTrickle is one login's trickle in a store.
type storeTrickle struct {
	c      valkey.Client
	script script
	key    string
	every  time.Duration
}

func (s *storeTrickle) draw(t fataler, now int64, network string, known bool, chance []float64) bool {
	n, err := s.script.number(context.Background(), s.c, []string{s.key}, []string{
		"ticket", itoa(now), network, digit(known), fmt.Sprint(chance[0]), fmt.Sprint(chance[1]),
		itoa(s.every.Milliseconds()), itoa(trickleBlocked.Milliseconds()),
	})
	if err != nil {
		t.Fatal(err)
	}
	return n == 1
}

func (s *storeTrickle) fail(t fataler, now int64, network string) {
	if _, err := s.script.number(context.Background(), s.c, []string{s.key}, []string{
		"failed", itoa(now), network, itoa(maxTrickleNets), itoa(2 * trickleBlocked.Milliseconds()),
	}); err != nil {
		t.Fatal(err)
	}
}
