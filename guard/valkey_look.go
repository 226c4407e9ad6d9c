package guard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"
)

const (
	// beatEvery is how often the store is looked at, and by how much the news
	// that it is back may be late.
	beatEvery     = 500 * time.Millisecond
	beatAwayEvery = 100 * time.Millisecond
	// beatTimeout is how long a sign of life may take.
	beatTimeout = time.Second
	// clusterBeats is how many keys, and so most likely all masters of a
	// Cluster, a sign of life is written to.
	clusterBeats = 16
)

// run connects, then looks at the store until ctx ends. reached is closed
// after the first look.
func (f *fleet) run(ctx context.Context, reached chan struct{}) {
	defer f.done.Done()
	first := sync.OnceFunc(func() { close(reached) })
	defer first()
	var counts uint64
	for ctx.Err() == nil {
		if err := f.look(ctx, &counts); err != nil && ctx.Err() == nil {
			f.link.down(err)
		} else if err == nil {
			first()
		}
		every := beatEvery
		if f.link.client() == nil {
			every = beatAwayEvery
		}
		select {
		case <-ctx.Done():
		case <-f.hurry:
		case <-time.After(every):
		}
	}
}

// lookNow has the store looked at without a pause.
func (f *fleet) lookNow() {
	select {
	case f.hurry <- struct{}{}:
	default:
	}
}

// look connects if need be, gives a sign of life, and if the store was away
// tells it what it missed.
func (f *fleet) look(ctx context.Context, counts *uint64) error {
	c, err := f.connect()
	if err != nil {
		return err
	}
	lost, err := f.beat(ctx, c, counts)
	if err != nil {
		return err
	}
	f.forgiveAgain()
	if lost {
		f.readAgain()
	}
	if f.link.client() != nil && !lost {
		f.tidy(ctx, c)
		f.share.outbox.sweep(time.Now())
		// A step may have failed though the store is there.
		if _, err := f.ledger.replay(ctx, c, false); err != nil {
			return err
		}
		return f.ledger.renew(ctx, c)
	}
	return f.reconcile(ctx, c, lost)
}

func (f *fleet) connect() (valkey.Client, error) {
	if c := f.client.Load(); c != nil {
		return *c, nil
	}
	c, err := valkey.NewClient(f.options)
	if err != nil {
		return nil, err
	}
	f.client.Store(&c)
	return c, nil
}

// beat gives a sign of life: it sets the fleet's clock, shows that the store
// takes writes, and notices if it has lost any, by a flush or by a failover to
// a replica that lagged.
func (f *fleet) beat(ctx context.Context, c valkey.Client, counts *uint64) (lost bool, err error) {
	*counts++
	for _, key := range f.beats {
		ctx, cancel := context.WithTimeout(ctx, beatTimeout)
		before := f.g.clock.now().UnixMilli()
		reply, err := f.share.script.run(ctx, c, []string{key}, []string{"beat", itoa(int64(*counts))})
		after := f.g.clock.now().UnixMilli()
		cancel()
		if err != nil {
			*counts-- // this one may not have been written
			return false, err
		}
		if len(reply) != 2 {
			return false, errReply
		}
		at, err1 := reply[0].AsInt64()
		last, err2 := reply[1].AsInt64()
		if err := errors.Join(err1, err2); err != nil {
			return false, errReply
		}
		lost = lost || last < int64(*counts)-1
		if err := f.link.setAhead(at-after, at-before); err != nil {
			return false, err
		}
	}
	return lost, nil
}

// reconcile tells the store what it has missed, and after a loss also what it
// has lost. The link is up when it knows all. The loss is seen once: it is kept
// in mind until the store has been told.
func (f *fleet) reconcile(ctx context.Context, c valkey.Client, lost bool) error {
	if lost {
		f.ledger.setRefillDue(true)
	}
	if err := f.quickEnough(ctx, c); err != nil {
		return err
	}
	if f.ledger.isRefillDue() {
		if err := f.ledger.refillGood(ctx, c); err != nil {
			return err
		}
	}
	steps, again := 0, true
	for {
		n, err := f.ledger.replay(ctx, c, again)
		steps += n
		if err != nil {
			return err
		}
		if n == 0 && !again {
			break
		}
		again = false
	}
	if f.ledger.isRefillDue() {
		if err := f.ledger.refill(ctx, c); err != nil {
			return err
		}
	}
	records, _ := f.share.writer.status()
	f.resend()
	f.link.restored(c, steps, records)
	f.share.writer.retry()
	// What was decided while the last of it was sent is sent now.
	_, err := f.ledger.replay(ctx, c, false)
	return err
}

// quickEnough makes a step as credentials do. A store that takes longer than
// those wait is as good as away. The first try may be longer: it also sends the
// script.
func (f *fleet) quickEnough(ctx context.Context, c valkey.Client) error {
	var took time.Duration
	for range 2 {
		ctx, cancel := context.WithTimeout(ctx, beatTimeout)
		start := time.Now()
		_, err := f.ledger.store.read(ctx, c, key{kind: byLogin}, f.link.now())
		cancel()
		if err != nil {
			return err
		}
		if took = time.Since(start); took <= f.link.timeout {
			return nil
		}
	}
	return fmt.Errorf("the store takes %v to answer, longer than store.timeout (%v)", took.Round(time.Millisecond), f.link.timeout)
}

// readAgain has all bans read anew.
func (f *fleet) readAgain() {
	select {
	case f.again <- struct{}{}:
	default:
	}
}

// tidy removes what has ended from one of the index keys.
func (f *fleet) tidy(ctx context.Context, c valkey.Client) {
	f.follower.tidied++
	key := f.share.names.indexAt(f.follower.tidied % indexes)
	_ = c.Do(ctx, c.B().Zremrangebyscore().Key(key).Min("-inf").Max(itoa(f.link.now()-3600_000)).Build())
}
