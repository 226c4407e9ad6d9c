package guard

import (
	"testing"

	"pgregory.net/rapid"
)

// TestSharedLedgersCountAsANaiveListDoes plays the ledgers' property test on a
// server: all keys in one call, and as in a Cluster a call for each slot.
func TestSharedLedgersCountAsANaiveListDoes(t *testing.T) {
	c := startServer(t).client(t)
	for name, split := range map[string]bool{"one call": false, "a call for each slot": true} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				l := newTestLedger(c, split)
				compareWithNaive(t, l)
				if l.link.client() == nil || l.buffered() != 0 || l.link.timeouts.Load()+l.link.dropped.Load() != 0 {
					t.Fatalf("not all was counted by the server: %d steps unsent, %d calls failed, %d values dropped",
						l.buffered(), l.link.timeouts.Load(), l.link.dropped.Load())
				}
			})
		})
	}
}
