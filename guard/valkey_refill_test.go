package guard

import (
	"context"
	"fmt"
	"testing"
	"time"

	"mailreeve/protocol"
)

// sends has a server deal with recipients of an address's, each another.
func (n *node) sends(addr string, kind protocol.Kind, from, to int) {
	n.Helper()
	for i := from; i < to; i++ {
		n.g.Report(mx(addr), "", protocol.Event{Kind: kind, Recipient: fmt.Sprintf("%s%d@example.test", kind, i)})
	}
}

// bad is how many bad recipients of an address's the store knows.
func (n *node) bad(addr string) float64 { return n.pointsUnder("invalid-rcpt", addr) }

// forgetSent has what a node sent lately be as if it were longer ago than
// resendWithin: only memory has it.
func (n *node) forgetSent() {
	n.g.fleet.ledger.mu.Lock()
	defer n.g.fleet.ledger.mu.Unlock()
	n.g.fleet.ledger.sent = nil
}

// A store that has lost what it had is told of good recipients, too, and before
// the bad ones: those alone would ban who mostly writes to good ones.
func TestALossOfTheStoreBansNoBigSender(t *testing.T) {
	t.Parallel()
	const addr = "192.0.2.1"
	for name, f := range map[string]struct {
		loss func(*server, *node)
		bad  int // in the end
	}{
		"flushed": {func(s *server, n *node) {
			redisCLI(n.T, s.client(n.T), "FLUSHALL")
		}, 60},
		// What waits to be sent has the bad ones of the meantime only: the
		// good ones are known.
		"killed": {func(s *server, n *node) {
			s.kill()
			n.away()
			n.sends(addr, protocol.GoodRcpt, 0, 300)
			n.sends(addr, protocol.InvalidRcpt, 60, 110)
			s.start()
			n.back()
		}, 110},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := startServer(t)
			nodes := fleetOf(t, 2, srv.shared(), nil)
			one, two := nodes[0], nodes[1]
			one.sends(addr, protocol.GoodRcpt, 0, 500)
			one.sends(addr, protocol.InvalidRcpt, 0, 60)
			one.forgetSent()
			f.loss(srv, one)
			eventually(t, 10*time.Second, "the bad ones are back", func() bool {
				return one.bad(addr) == float64(f.bad) || one.g.Admit(mx(addr)) == protocol.Banned
			})
			one.admits(mx(addr), protocol.Pass)
			// Nor does it what comes next, wherever it comes.
			two.sends(addr, protocol.InvalidRcpt, f.bad, f.bad+10)
			two.admits(mx(addr), protocol.Pass)
			if got := two.bad(addr); got != float64(f.bad+10) {
				t.Errorf("%v bad ones, want %d", got, f.bad+10)
			}
		})
	}
}

// Who finds that the store has lost something, and then cannot tell it, does so
// later.
func TestALossIsNotForgotten(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	one := fleetOf(t, 1, srv.shared(), nil)[0]
	one.guesses("192.0.2.1", "alice", 3)
	one.forgetSent()
	ledger := one.g.fleet.ledger
	c, k := srv.client(t), key{kind: byAddress, prefix: mustAddr("192.0.2.1")}
	redisCLI(t, c, "DEL", ledger.store.names.counter(k))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := one.g.fleet.reconcile(ctx, c, true); err == nil {
		t.Fatal("the store was told through a connection that was given up")
	} else {
		one.g.fleet.link.down(err)
	}
	eventually(t, 10*time.Second, "the points are back", func() bool {
		n, _ := redisCLI(t, c, "EXISTS", ledger.store.names.counter(k)).AsInt64()
		return n == 1
	})
	if got := one.points("192.0.2.1"); got != 3 {
		t.Errorf("%v points, want 3", got)
	}
}

// Good recipients are told again with their times, but for what the share may
// forget too early; twice told, each counts once.
func TestGoodRecipientsAreToldAgainWithTheirTimes(t *testing.T) {
	t.Parallel()
	c := startServer(t).client(t)
	l := newTestLedger(c, false)
	good := testRules[3]
	good.key, good.points, good.good = testKeys[0], 0, true
	again := good.period / goodAgain
	start := time.Now().Add(-20 * again)
	for i := range uint32(60) {
		good.value = i + 1
		l.note(start.Add(time.Duration(i)*again/3), good)
	}
	redisCLI(t, c, "FLUSHALL")
	for range 2 {
		if err := l.refillGood(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	views, err := l.store.read(t.Context(), c, good.key, l.link.now())
	if err != nil || len(views) != 1 || !views[0].good {
		t.Fatalf("the store has %+v, %v", views, err)
	}
	told := map[uint32]int64{}
	for _, m := range views[0].marks {
		told[m.value] = m.at
	}
	had := l.local.entries[good.key].windows[0].marks
	if len(told) != len(had) || len(had) != 60 {
		t.Errorf("the store has %d, memory %d, want 60", len(told), len(had))
	}
	for _, m := range had {
		if early := m.at - told[m.value]; early < 0 || early >= again.Milliseconds() {
			t.Errorf("%d is told as of %d ms before its time", m.value, early)
		}
	}
}
