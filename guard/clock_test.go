package guard

import (
	"testing"
	"time"
)

// Whatever the machine's clock does, the guard's does not go back, not even by
// the few milliseconds that are put up with otherwise, and it follows a clock
// that is set forward at once.
func TestTheClockNeverGoesBack(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := start
	c := newClock(func() time.Time { return at })
	for _, step := range []struct{ set, want time.Duration }{
		{0, 0},
		{20 * time.Millisecond, 20 * time.Millisecond},
		{15 * time.Millisecond, 20 * time.Millisecond}, // back by a little
		{18 * time.Millisecond, 23 * time.Millisecond}, // what passes, passes
		{24 * time.Millisecond, 24 * time.Millisecond}, // caught up with again
		{time.Hour, time.Hour},
		{-time.Hour, time.Hour},
		{-59 * time.Minute, time.Hour + time.Minute},
	} {
		at = start.Add(step.set)
		if got := c.now().Sub(start); got != step.want {
			t.Errorf("at %v the time is %v, want %v", step.set, got, step.want)
		}
		if got := time.UnixMilli(c.milli()).Sub(start); got != step.want {
			t.Errorf("at %v the milliseconds are %v, want %v", step.set, got, step.want)
		}
	}
}
