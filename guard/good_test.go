package guard

import (
	"fmt"
	"testing"
	"time"

	"mailreeve/protocol"
)

// A good recipient that comes again is counted again after a while, so that it
// lasts; until then nothing is written or sent.
func TestAGoodRecipientIsCountedOnceInAWhile(t *testing.T) {
	c := testRules[3]
	c.key, c.points, c.good, c.value = testKeys[0], 0, true, 7
	again := c.period / goodAgain
	for name, make := range ledgers(t) {
		t.Run(name, func(t *testing.T) {
			l, start := make(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			local, _ := l.(*memoryLedger)
			sent := func() int { return 0 }
			if f, ok := l.(*fleetLedger); ok {
				local, sent = f.local, func() int { return len(f.sent) }
			}
			for i, step := range []struct {
				after time.Duration
				want  bool
			}{{0, true}, {1, false}, {again - time.Millisecond, false}, {again, true}, {2*again - time.Millisecond, false}, {5 * again, true}} {
				local.takeDirty()
				before := sent()
				l.note(start.Add(step.after), c)
				_, written := local.takeDirty()[c.key]
				if written != step.want || local != l && sent() > before != step.want {
					t.Errorf("step %d, after %v: written %v, %d sent; want %v", i, step.after, written, sent()-before, step.want)
				}
			}
			if marks := local.entries[c.key].windows[0].marks; len(marks) != 1 || marks[0].at != start.Add(5*again).UnixMilli() {
				t.Errorf("marks %+v", marks)
			}
		})
	}
}

// What is known of a recipient is known under one rule, as a good one, and only if
// it was told apart from others.
func TestWhatElseIsCountedMakesNoGoodRecipientKnown(t *testing.T) {
	good := testRules[3]
	good.key, good.points, good.good, good.value = testKeys[0], 0, true, 7
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	bad, elsewhere, untold := good, good, good
	bad.good, bad.points = false, 1000
	elsewhere.rule = "another"
	untold.value = 0
	for name, before := range map[string]claim{"a bad one": bad, "another rule's": elsewhere, "one not told apart": untold} {
		l := newMemoryLedger(tableBounds{1000, 1000, 1000}, func(string) bool { return false })
		l.charge(now, []claim{before}, nil)
		l.takeDirty()
		c := good
		c.value = before.value
		if l.note(now, c); len(l.takeDirty()) == 0 {
			t.Errorf("after %s, a good recipient is not counted", name)
		}
	}
}

// As many good recipients are kept as can protect their sender, and of a login's
// connection none: it is not judged by them.
func TestGoodRecipientsAreBounded(t *testing.T) {
	tell(t, nil, func(s *story) {
		kept := func(o *Origin) (n int) {
			s.g.memory.mu.Lock()
			defer s.g.memory.mu.Unlock()
			if e := s.g.memory.entries[key{kind: byAddress, prefix: widths{32, 64}.address(o.Addr)}]; e != nil {
				for i := range e.windows {
					n += len(e.windows[i].marks)
				}
			}
			return n
		}
		for i := range 600 {
			e := protocol.Event{Kind: protocol.GoodRcpt, Recipient: fmt.Sprintf("person%d@example.test", i)}
			s.g.Report(mx("192.0.2.1"), "", e)
			s.g.Report(mx("192.0.2.2"), "alice", e)
		}
		const most = 5 * 35 * 3 // five times the limit, of each four three good
		if n := kept(mx("192.0.2.1")); n != most {
			s.Errorf("%d are kept, want %d", n, most)
		}
		if n := kept(mx("192.0.2.2")); n != 0 {
			s.Errorf("%d are kept of who has logged in", n)
		}
	})
}

// Who does not know the key cannot find names that are taken for one.
func TestDistinctValuesAreKeyed(t *testing.T) {
	keyed := func(key string) *Guard { return &Guard{distinctKey: deriveDistinctKey([]byte(key))} }
	a, again, b := keyed("one"), keyed("one"), keyed("two")
	for _, name := range []string{"", "bob", "a name that fills more than one block of the hash with its key@example.test"} {
		if a.distinct(name) != again.distinct(name) || a.distinct(name) == a.distinct(name+"x") || a.distinct(name) == b.distinct(name) {
			t.Errorf("%q: %08x, with another key %08x", name, a.distinct(name), b.distinct(name))
		}
	}
}

// Each message of each sender tells of one at least.
func TestAnAcceptedRecipientAllocatesNothing(t *testing.T) {
	tell(t, nil, func(s *story) {
		told := 0
		defer s.g.Follow(func(*News) { told++ })()
		o, e := mx("192.0.2.1"), protocol.Event{Kind: protocol.GoodRcpt, Recipient: "bob@example.test", Code: "250 2.0.0"}
		s.g.Report(o, "", e)
		if n := testing.AllocsPerRun(100, func() { s.g.Report(o, "", e) }); n != 0 || told < 100 {
			s.Errorf("%v allocations, %d events told", n, told)
		}
	})
}
