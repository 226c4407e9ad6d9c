package guard

import (
	"sync"
	"sync/atomic"
	"time"
)

// A clock tells the time of day but never goes back: while the machine's clock
// is set back, it goes on at the pace of the monotonic clock, so that no ban
// lasts longer and no point is forgotten. It follows a clock set forward.
type clock struct {
	source func() time.Time

	// ahead is by how many nanoseconds we are ahead of the machine's clock.
	ahead atomic.Int64
	// lately is what now told last, in milliseconds. While a guard is open that
	// is less than clockLag ago, unless the whole machine stood still.
	lately atomic.Int64

	mu   sync.Mutex
	last time.Time // as the source gave it
	told time.Time // as we gave it
}

func newClock(source func() time.Time) *clock {
	if source == nil {
		source = time.Now
	}
	return &clock{source: source}
}

// now gives the time.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.source()
	elapsed := t.Sub(c.last) // monotonic, where the source has it
	wall := t.Round(0)
	told := wall
	if !c.last.IsZero() {
		told = c.told.Add(max(elapsed, 0))
		// The two clocks differ by a little all the time; only a step counts.
		if wall.After(told) || told.Sub(wall) < 10*time.Millisecond && !wall.Before(c.told) {
			told = wall
		}
	}
	c.last, c.told = t, told
	c.ahead.Store(int64(told.Sub(wall)))
	c.lately.Store(told.UnixMilli())
	return told
}

// clockLag is in milliseconds; the janitor asks for the time every second.
const clockLag = 5000

// milli gives the time in milliseconds, without a lock. It is right unless the
// clock was set since the last call of now.
func (c *clock) milli() int64 {
	return c.source().Add(time.Duration(c.ahead.Load())).UnixMilli()
}
