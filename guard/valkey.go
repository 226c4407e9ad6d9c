package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valkey-io/valkey-go"
)

// The shared store is Valkey or Redis, 7.0 or later: one server, one with
// replicas and Sentinels, or a Cluster. With it many proxies judge as one.
//
//   - Counting and reserving: [fleetLedger], each step one script call.
//   - Bans, guarded logins, allow entries and places: each node has all of
//     them in memory, and in its embedded store for its next start. [share]
//     tells the store what is decided here, valkey_follow.go takes over what
//     is decided elsewhere.
//   - [link] knows whether the store is there. Nothing that accepts
//     connections ever waits for it.
//
// The client is valkey-go, not go-redis: it pipelines by itself, which serves
// 64 callers with three times the calls; it is a quarter of the size; RESP3,
// ACL users, TLS, Sentinel and Cluster work with both. Client-side caching is
// not used: what is asked at accept must be in memory without a round trip
// ever, and what is counted is never read without being changed. The steps
// are scripts, not a function library: a script is known by its hash, so two
// versions of this program can use a store at a time, nothing has to be loaded
// on the masters of a Cluster, and the ACL needs no right to change functions.
type fleet struct {
	g       *Guard
	cfg     SharedStoreConfig
	options valkey.ClientOption
	link    *link
	share   *share
	ledger  *fleetLedger
	beats   []string

	cancel context.CancelFunc
	done   sync.WaitGroup
	// client is set once the store has been reached; it reconnects by itself.
	client atomic.Pointer[valkey.Client]
	// again asks for all to be read anew, and hurry for a look at the store at
	// once; each holds one element at most.
	again, hurry chan struct{}
	// synced is closed when the store's bans have been read for the first time.
	synced     chan struct{}
	syncedOnce sync.Once

	follower follower
	// forgiven is what was forgiven before a restart, until the fleet's clock
	// is known.
	forgiven []resumed
}

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
	// waitEvery is how often attempts look again that wait for what other
	// nodes have reserved: their settling wakes nobody here.
	waitEvery = 50 * time.Millisecond
)

// newFleet prepares the shared store. It does not wait for it.
func newFleet(g *Guard, c SharedStoreConfig) (*fleet, error) {
	options, err := c.options()
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname()
	node := fmt.Sprintf("%s-%d-%s", host, os.Getpid(), newID()[:6])
	n := names{c.Prefix}
	k := &link{log: g.log, clock: g.clock.now, timeout: c.Timeout.Std(), since: time.Now()}
	f := &fleet{
		g: g, cfg: c, options: options, link: k, again: make(chan struct{}, 1), hurry: make(chan struct{}, 1), synced: make(chan struct{}),
		share: &share{link: k, names: n, script: newScript(recordsScript), node: node, told: make(map[string]int64),
			versions: newVersions(mix(0, []byte(node)), k.fleetClock),
			keepFor:  func() time.Duration { return max(min(g.set.Load().cfg.Familiar.Std(), removedFor), knownFor) }},
	}
	f.share.outbox = newOutbox(g.writer.keep)
	f.share.writer = newWriter(shareBackend{f.share}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	rules := func() []string {
		var out []string
		for _, r := range g.set.Load().rules {
			out = append(out, r.name)
		}
		return out
	}
	f.ledger = newFleetLedger(g.memory, k, n, c.Cluster, rules, f.late)
	f.ledger.hurry = f.lookNow
	f.ledger.closes = func(name string) bool {
		r := g.set.Load().rules.named(name)
		return r != nil && !r.dryRun
	}
	f.follower = follower{fleet: f}
	f.beats = []string{n.beat(node, 0)}
	if c.Cluster {
		for i := 1; i < clusterBeats; i++ {
			f.beats = append(f.beats, n.beat(node, i))
		}
	}
	return f, nil
}

// joinFleet makes the guard one of a fleet.
func (g *Guard) joinFleet(c StoreConfig) error {
	f, err := newFleet(g, c.SharedStoreConfig)
	if err != nil {
		return err
	}
	g.fleet, g.ledger = f, f.ledger
	g.writer.share = f.share.put
	if c.GuessKey == "" {
		g.log.Warn("store.guess-key is not set: the same wrong password through two proxies counts twice; " +
			"copy guess.key of one node to all and name it in store.guess-key")
	}
	return nil
}

// start begins to work with the store, and waits a moment for it.
func (f *fleet) start() {
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	reached := make(chan struct{})
	f.done.Add(3)
	go f.run(ctx, reached)
	go f.follow(ctx)
	go f.wakeWaiters(ctx)
	timer := time.NewTimer(beatTimeout)
	defer timer.Stop()
	select {
	case <-reached:
	case <-timer.C:
	}
}

// close tells the store what it has not been told, if it is there.
func (f *fleet) close() {
	_ = f.share.writer.close() // what it could not send is in the outbox
	f.cancel()
	if c := f.client.Load(); c != nil {
		(*c).Close()
	}
	f.done.Wait()
}

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
		f.link.setAhead(at-after, at-before)
	}
	return lost, nil
}

// reconcile tells the store what it has missed, and after a loss also what it
// has lost. The link is up when it knows all.
func (f *fleet) reconcile(ctx context.Context, c valkey.Client, lost bool) error {
	if err := f.quickEnough(ctx, c); err != nil {
		return err
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
	if lost || f.ledger.overflowed() {
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

// late carries out what the store says about events that it was told late.
func (f *fleet) late(ev *Event, totals []total) {
	if ev == nil {
		return
	}
	o := &Origin{Addr: ev.Addr, Listener: ev.Listener, Scope: ev.Scope, Protocol: ev.Protocol, Upstream: ev.Upstream, Conn: ev.Conn}
	f.g.sentence(f.g.set.Load(), o, totals, f.g.clock.now())
}

// tidy removes what has ended from one of the index keys.
func (f *fleet) tidy(ctx context.Context, c valkey.Client) {
	f.follower.tidied++
	key := f.share.names.indexAt(f.follower.tidied % indexes)
	_ = c.Do(ctx, c.B().Zremrangebyscore().Key(key).Min("-inf").Max(itoa(f.link.now()-3600_000)).Build())
}

// wakeWaiters has those look again who wait for room.
func (f *fleet) wakeWaiters(ctx context.Context) {
	defer f.done.Done()
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if f.g.queues.waiting() > 0 {
				f.g.queues.heads()
			}
		}
	}
}

// status tells of the store, for operators.
func (f *fleet) status(s *StoreStatus) {
	since, err := f.link.state()
	s.Shared = &SharedStatus{Connected: err == nil, Node: f.share.node, Buffered: f.ledger.buffered(),
		Timeouts: f.link.timeouts.Load(), Outages: f.link.outages.Load(), Ignored: f.link.dropped.Load()}
	s.Shared.Pending, _ = f.share.writer.status()
	if err != nil {
		s.Shared.Error = err.Error()
		s.Shared.AwaySince = since.UTC()
	}
}
