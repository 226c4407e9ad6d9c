package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valkey-io/valkey-go"
)

var (
	// errAway: the store is away, which is known without asking it.
	errAway = errors.New("the store is away")
	// errBusy: it was not asked, for this node's other calls took all the time.
	errBusy = errors.New("the store is busy with this node's other calls")
)

// A link is the way to the shared store, and whether it is there.
type link struct {
	log     *slog.Logger
	clock   func() time.Time
	timeout time.Duration

	// ahead is by how many milliseconds the server's clock, which is the
	// fleet's, is ahead of ours.
	ahead atomic.Int64
	// steady is the same for versions: it does not follow what is noise, for a
	// version that is sent twice must be the same. timed is set once both are
	// known.
	steady atomic.Int64
	timed  atomic.Bool

	// up is the client while the store answers, nil while it is away.
	up atomic.Pointer[valkey.Client]

	// Counters for metrics.
	timeouts, outages, dropped atomic.Uint64

	mu       sync.Mutex
	failures int       // in a row
	silent   time.Time // since when, if failures is not 0
	since    time.Time
	err      error // of the last outage
	saidBad  time.Time
}

// failuresToAway is how many calls in a row may fail before the store is taken
// to be away, if they also failed for twice the timeout: several calls that are
// under way at once fail at once. One may be unlucky; each costs a credential
// the timeout.
const failuresToAway = 3

// client gives the client while the store is there, else nil.
func (k *link) client() valkey.Client {
	if c := k.up.Load(); c != nil {
		return *c
	}
	return nil
}

// now gives the fleet's time in milliseconds.
func (k *link) now() int64 { return k.clock().UnixMilli() + k.ahead.Load() }

// heard takes note of how a call went.
func (k *link) heard(err error) {
	if errors.Is(err, errAway) || errors.Is(err, errBusy) || errors.Is(err, errReply) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.failures = 0
		return
	}
	k.timeouts.Add(1)
	if k.failures++; k.failures == 1 {
		k.silent = time.Now()
	}
	// An answer that is an error (full, read only, no permission) is no
	// accident; silence may be.
	_, answered := valkey.IsValkeyErr(err)
	long := k.failures >= failuresToAway && time.Since(k.silent) >= 2*k.timeout
	if answered || long || !(errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errLate)) {
		k.downLocked(err)
	}
}

// answers tells whether the last call had an answer.
func (k *link) answers() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failures == 0
}

// downLocked takes the store to be away, and says so once.
func (k *link) downLocked(err error) {
	if k.up.Swap(nil) == nil && k.err != nil {
		k.err = err
		return
	}
	k.err, k.since = err, time.Now()
	k.outages.Add(1)
	k.log.Error("the store is away; this node goes on alone and tells it later what it decides", "error", err)
}

// down takes the store to be away.
func (k *link) down(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.downLocked(err)
}

// restored says that the store is there and knows all that this node does.
func (k *link) restored(c valkey.Client, steps, records int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failures = 0
	if k.err != nil {
		k.log.Info("the store is back and has been told what it missed", "after", time.Since(k.since).Round(time.Millisecond).String(),
			"steps", steps, "records", records)
	}
	k.err = nil
	k.up.Store(&c)
}

// state tells why the store is away, and since when; nil if it is there.
func (k *link) state() (time.Time, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.up.Load() == nil && k.err == nil {
		return k.since, errAway
	}
	return k.since, k.err
}

// badValues says, at most once a minute, that the store holds what makes no
// sense.
func (k *link) badValues(n int64) {
	if n == 0 {
		return
	}
	k.dropped.Add(uint64(n))
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.saidBad) < time.Minute {
		return
	}
	k.saidBad = time.Now()
	k.log.Warn("the store holds values that make no sense; they are ignored. Does anything else write below the prefix?",
		"values", k.dropped.Load())
}

// setAhead takes note of what an answer tells of the fleet's clock: it is ahead
// of ours by something between least and most. What agrees with that stays as it
// is, so that an answer that took long does not spoil what a quick one told.
func (k *link) setAhead(least, most int64) error {
	if least < -maxAhead || most > maxAhead {
		return fmt.Errorf("the store's clock is %d days ahead of ours; set the one that is wrong", least/(24*time.Hour).Milliseconds())
	}
	agrees := func(ahead, slack int64) bool { return least-slack <= ahead && ahead <= most+slack }
	middle := least + (most-least)/2
	if !agrees(k.ahead.Load(), clockNoise) {
		k.ahead.Store(middle)
	}
	if !agrees(k.steady.Load(), steadyWithin) {
		k.steady.Store(middle)
	}
	k.timed.Store(true)
	return nil
}

// fleetClock gives by how much the fleet's clock is ahead of ours, for versions;
// 0 and false until the store has been asked.
func (k *link) fleetClock() (ahead int64, known bool) {
	if !k.timed.Load() {
		return 0, false
	}
	return k.steady.Load(), true
}

const (
	// clockNoise is by how many milliseconds the fleet's clock may differ from
	// what is known of it before that is corrected, and steadyWithin by how
	// many before versions take notice.
	clockNoise   = 2
	steadyWithin = 1000
	// maxAhead is by how many the clocks may differ at all, a hundred years: a
	// machine that has lost its own begins with 1970.
	maxAhead = 100 * 365 * 24 * 3600 * 1000
)
