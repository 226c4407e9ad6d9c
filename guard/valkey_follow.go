package guard

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valkey-io/valkey-go"
)

// A follower takes over what the fleet decides. It reads all lasting keys once,
// then the stream from where it ended before that: so there is no gap, and what
// comes twice changes nothing. After a break it goes on where it was; if the
// stream no longer has that, it reads all anew.
type follower struct {
	*fleet
	state followState
	last  string // the id of the last change read
	// sure is the last change up to which none was missed, as of sureAt.
	sure   string
	sureAt time.Time
	doubts atomic.Uint64
	tidied int
	// reading numbers the readings of all keys; two that are 65,536 apart may
	// share a number.
	reading uint16
	// applied counts changes taken over, for tests and metrics.
	applied atomic.Uint64
}

// A followState is what a follower has to do next.
type followState uint8

const (
	behind    followState = iota // it must read all keys
	doubtful                     // it may have missed changes
	following                    // it has read all changes up to the last
)

const (
	// readBlock is how long a read waits for changes, and readSlack how much
	// longer it may take before it is made sure that none were missed.
	readBlock = time.Second
	readSlack = 500 * time.Millisecond
	readMost  = 500
	// followPause is the pause after an error.
	followPause = 50 * time.Millisecond
)

// follow reads changes until ctx ends.
func (f *fleet) follow(ctx context.Context) {
	defer f.done.Done()
	r := &f.follower
	for ctx.Err() == nil {
		c := f.client.Load()
		if c == nil || !f.link.timed.Load() {
			pause(ctx, followPause)
			continue
		}
		select {
		case <-f.again:
			r.state = behind
		default:
		}
		if err := r.step(ctx, *c); err != nil {
			r.doubt()
			pause(ctx, followPause)
		}
	}
}

// step does what is next: it reads all keys, or makes sure that the stream has
// all that came since the last change read, or reads changes.
func (r *follower) step(ctx context.Context, c valkey.Client) error {
	switch r.state {
	case behind:
		if err := r.readAll(ctx, c); err != nil {
			return err
		}
		r.syncedOnce.Do(func() { close(r.synced) })
	case doubtful:
		unbroken, err := r.unbroken(ctx, c)
		if err != nil {
			return err
		}
		if !unbroken {
			r.state = behind
			return nil
		}
	case following:
		if err := r.readChanges(ctx, c); err != nil {
			return err
		}
		if time.Since(r.sureAt) > readBlock+readSlack {
			r.doubt()
			return nil
		}
	}
	r.state, r.sure, r.sureAt = following, r.last, time.Now()
	return nil
}

// doubt says that changes may have been trimmed from the stream before they
// were read.
func (r *follower) doubt() {
	if r.state == following {
		r.state = doubtful
		r.doubts.Add(1)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// unbroken tells whether the stream still has all that came since the change
// up to which none was missed. It takes a stream for broken from which just
// that one has been trimmed, which does no harm.
func (r *follower) unbroken(ctx context.Context, c valkey.Client) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	first, err := c.Do(ctx, c.B().Xrange().Key(r.share.names.changes()).Start("-").End("+").Count(1).Build()).AsXRange()
	if err != nil && !wrongType(err) {
		return false, err
	}
	return len(first) == 1 && !idLess(r.sure, first[0].ID), nil
}

// wrongType tells whether a key is not of the type that it should be of.
func wrongType(err error) bool {
	e, ok := valkey.IsValkeyErr(err)
	return ok && strings.HasPrefix(e.Error(), "WRONGTYPE")
}

// idLess compares the ids of a stream, "milliseconds-number".
func idLess(a, b string) bool {
	am, an := splitID(a)
	bm, bn := splitID(b)
	return am < bm || am == bm && an < bn
}

func splitID(id string) (ms, n uint64) {
	left, right, _ := strings.Cut(id, "-")
	ms, _ = strconv.ParseUint(left, 10, 64)
	n, _ = strconv.ParseUint(right, 10, 64)
	return ms, n
}

// readChanges reads what has changed, waiting a while for it.
func (r *follower) readChanges(ctx context.Context, c valkey.Client) error {
	ctx, cancel := context.WithTimeout(ctx, readBlock+2*time.Second)
	defer cancel()
	key := r.share.names.changes()
	cmd := c.B().Xread().Count(readMost).Block(readBlock.Milliseconds()).Streams().Key(key).Id(r.last).Build()
	got, err := c.Do(ctx, cmd).AsXRead()
	if valkey.IsValkeyNil(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var news []sharedRecord
	for _, e := range got[key] {
		r.last = e.ID
		var s sharedRecord
		text := e.FieldValues["r"]
		switch {
		case e.FieldValues["by"] == r.share.node || e.FieldValues["by"] != "" && text == "":
			continue
		case len(text) > 3*maxSharedValue || json.Unmarshal([]byte(text), &s) != nil:
			r.link.badValues(1)
			continue
		}
		news = append(news, s)
	}
	r.take(news, false)
	return nil
}
