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
	told int64     // as we gave it, in nanoseconds
}

func newClock(source func() time.Time) *clock {
	if source == nil {
		source = time.Now
	}
	return &clock{source: source}
}

// now gives the time. Every call of the guard asks, so it is reckoned in
// nanoseconds: as times that takes half as long again.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.source()
	wall := t.UnixNano()
	told := wall
	if !c.last.IsZero() {
		elapsed := t.Sub(c.last) // monotonic, where the source has it
		told = c.told + int64(max(elapsed, 0))
		// The two clocks differ by a little all the time; only a step counts.
		if wall > told || told-wall < int64(10*time.Millisecond) && wall >= c.told {
			told = wall
		}
	}
	c.last, c.told = t, told
	c.ahead.Store(told - wall)
	c.lately.Store(told / int64(time.Millisecond))
	return time.Unix(0, told)
}

// clockLag is in milliseconds; the janitor asks for the time every second.
const clockLag = 5000

// milli gives the time in milliseconds, without a lock. It is right unless the
// clock was set since the last call of now.
func (c *clock) milli() int64 {
	return (c.source().UnixNano() + c.ahead.Load()) / int64(time.Millisecond)
}
