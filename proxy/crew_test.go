package proxy

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Who is done waits for the next, few of them do, and none stay in the end.
func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		off := make(chan struct{})
		cr := newCrew(off)
		var done atomic.Int32
		hold := make(chan struct{})
		for range crewWaits + 10 {
			cr.run(func() { <-hold; done.Add(1) })
		}
		synctest.Wait()
		if n := len(cr.waiting); n != 0 {
			t.Fatalf("%d wait while all work", n)
		}
		close(hold)
		synctest.Wait()
		if n := len(cr.waiting); n != crewWaits {
			t.Errorf("%d wait, want %d", n, crewWaits)
		}
		release := make(chan struct{})
		cr.run(func() { done.Add(1); <-release })
		synctest.Wait()
		if n := len(cr.waiting); n != crewWaits-1 {
			t.Errorf("%d wait while one of them works, want %d", n, crewWaits-1)
		}
		if n := done.Load(); n != crewWaits+11 {
			t.Errorf("%d were run, want %d", n, crewWaits+11)
		}
		close(release)
		synctest.Wait()
		for range 8 {
			cr.thin()
			synctest.Wait()
		}
		if n := len(cr.waiting); n != 0 {
			t.Errorf("%d wait for nothing", n)
		}
		cr.run(func() {}) // and one more waits
		close(off)
		cr.working.Wait() // the bubble ends with its last goroutine
	})
}
