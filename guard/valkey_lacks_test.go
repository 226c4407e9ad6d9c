package guard

import (
	"testing"
	"time"
)

// Of some guesses the store has not been told yet, though it is there again: what
// this node counted itself holds until it has.
func TestWhatTheStoreHasMissedCounts(t *testing.T) {
	t.Parallel()
	l := newTestLedger(startServer(t).client(t), false)
	claims := func() []claim {
		c := testRules[0] // five points
		c.key = testKeys[0]
		return []claim{c}
	}
	guess := func() []total {
		t.Helper()
		c := claims()
		if g, _ := l.reserve(time.Now(), c); g != granted {
			t.Fatalf("grant %v", g)
		}
		return l.settle(time.Now(), c, true, nil)
	}
	there := l.link.up.Swap(nil)
	guess()
	guess()
	l.link.up.Store(there)
	for range 2 {
		if totals := guess(); totals[0].tripped {
			t.Fatalf("before the fifth guess: %+v", totals)
		}
	}
	flying := claims()
	if g, _ := l.reserve(time.Now(), flying); g != granted {
		t.Fatalf("the fifth guess: grant %v", g)
	}
	if g, at := l.reserve(time.Now(), claims()); g != full || at != 0 {
		t.Errorf("beside the fifth guess: grant %v at %d, want it to wait", g, at)
	}
	if totals := l.settle(time.Now(), flying, true, nil); !totals[0].tripped {
		t.Errorf("after the fifth guess: %+v, want it to reach the limit", totals)
	}
	if g, _ := l.reserve(time.Now(), claims()); g != over {
		t.Errorf("after the fifth guess: grant %v, want it refused", g)
	}
	// What was refused here holds no points there.
	c := l.link.client()
	for l.buffered() > 0 {
		if _, err := l.replay(t.Context(), c, false); err != nil {
			t.Fatal(err)
		}
	}
	views, err := l.store.read(t.Context(), c, testKeys[0], l.link.now())
	if err != nil || len(views) != 1 || len(views[0].marks) != 5 || len(views[0].pending) != 0 {
		t.Errorf("the store has %+v, %v; want five points and nothing reserved", views, err)
	}
	if l.lacks(claims()) {
		t.Error("the store is taken to lack what it has been told")
	}
}

// A store that a failover has set back is told again what it had been told of
// late: not only the points, but also that they were cleared.
func TestWhatWasClearedIsClearedAgain(t *testing.T) {
	t.Parallel()
	c := startServer(t).client(t)
	l := newTestLedger(c, false)
	w := testRules[0]
	w.key = testKeys[0]
	charge := func() { l.charge(time.Now(), []claim{w}, nil) }
	charge()
	charge()
	if got := l.clear(w.key, forever, func(rule string) bool { return rule == w.rule }); len(got) != 1 || got[0].sum != 2000 {
		t.Fatalf("cleared %+v, want two points", got)
	}
	aMomentLater(t)
	charge()
	redisCLI(t, c, "FLUSHALL")
	if _, err := l.replay(t.Context(), c, true); err != nil {
		t.Fatal(err)
	}
	if views, err := l.store.read(t.Context(), c, w.key, l.link.now()); err != nil || len(views) != 1 || len(views[0].marks) != 1 {
		t.Errorf("the store has %+v, %v; want the point that came after", views, err)
	}
}
