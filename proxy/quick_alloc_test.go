//go:build !race

// The race detector has pools forget at random.

package proxy

import (
	"io"
	"testing"
)

// A line that is relayed must cost no allocation.
func TestQuickConnAllocatesNothing(t *testing.T) {
	q, far := quickPair(t)
	line := []byte("MAIL FROM:<a@example.test>\r\n")
	buf := make([]byte, len(line))
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := q.Write(line); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(far, buf); err != nil {
			t.Fatal(err)
		}
		if _, err := far.Write(line); err != nil {
			t.Fatal(err)
		}
		if _, err := q.Read(buf); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations for a line each way", allocs)
	}
}
