package guard

import (
	"context"
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

// waitEvery is how often attempts look again that wait for what other nodes have
// reserved: their settling wakes nobody here.
const waitEvery = 50 * time.Millisecond

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

// late carries out what the store says about events that it was told late.
func (f *fleet) late(ev *Event, totals []total) {
	if ev == nil {
		return
	}
	o := &Origin{Addr: ev.Addr, Listener: ev.Listener, Scope: ev.Scope, Protocol: ev.Protocol, Upstream: ev.Upstream, Conn: ev.Conn}
	f.g.sentence(f.g.set.Load(), o, totals, f.g.clock.now())
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
