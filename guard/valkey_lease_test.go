package guard

import (
	"context"
	"testing"
	"time"
)

// What a node has reserved when it dies counts once its lease has ended:
// nobody knows what came of those guesses. A node that lives prolongs its own.
func TestReservationsOfADeadNodeCountAfterTheirLease(t *testing.T) {
	srv := startServer(t)
	for name, split := range map[string]bool{"one call": false, "a call for each slot": true} {
		t.Run(name, func(t *testing.T) {
			c := srv.client(t)
			dead, alive := newTestLedger(c, split), newTestLedger(c, split)
			alive.store.names = dead.store.names
			dead.store.lease, alive.store.lease = 200*time.Millisecond, 200*time.Millisecond
			find := func(rule string) (terms, bool) {
				for _, r := range testRules {
					if r.rule == rule {
						return r.terms, true
					}
				}
				return terms{}, false
			}
			one := func(k key) []claim {
				c := testRules[0]
				c.key = k
				return []claim{c}
			}
			lost, kept := testKeys[0], testKeys[2]
			first, second, mine := one(lost), one(lost), one(kept)
			for l, claims := range map[*fleetLedger][][]claim{dead: {first, second}, alive: {mine}} {
				for _, c := range claims {
					if g, _ := l.reserve(time.Now(), c); g != granted {
						t.Fatalf("reserve: %v", g)
					}
				}
			}
			at := func(k key) (sum milli) {
				for _, r := range alive.read(time.Now(), k, find) {
					sum += r.sum
				}
				return sum
			}
			if got := at(lost); got != 0 {
				t.Errorf("before the lease has ended: %v points, want 0", got.float())
			}
			eventually(t, 5*time.Second, "the dead node's two guesses count", func() bool {
				if err := alive.renew(context.Background(), c); err != nil {
					t.Fatal(err)
				}
				return at(lost) == 2000
			})
			if got := at(kept); got != 0 {
				t.Errorf("what is under way at a node that lives counts %v points, want 0", got.float())
			}
			// The dead node was only slow: its answer counts once.
			dead.settle(time.Now(), first, true, nil)
			if got := at(lost); got != 2000 {
				t.Errorf("after a late answer: %v points, want 2", got.float())
			}
			alive.settle(time.Now(), mine, false, nil)
			if got := at(kept); got != 0 {
				t.Errorf("after a refund: %v points, want 0", got.float())
			}
		})
	}
}
