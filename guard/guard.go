// Package guard is the judge: events in, verdicts out.
//
// The data path needs four calls: [Guard.Admit] when a connection arrives,
// [Guard.Attempt] before a credential goes to the server, [Guard.Settle] with
// the server's answer, and [Guard.Report] for everything else. Every call
// carries an [Origin]. [Guard.Subscribe] delivers what changed.
//
// # How it is built
//
// The core takes values and returns values, time among them: windows (points
// in an exact sliding window), rules, keys, the trickle, the places. Around it:
//
//   - A [ledger] counts: it reserves, settles and charges points, each call one
//     atomic step. It is the seam behind which counters may be shared by many
//     proxies.
//   - Sentences are what follows: bans, guarded logins, refused networks. Those
//     on addresses and networks are in a roll, which is changed under one lock
//     without readers noticing; what led to them is in the store, and read when
//     somebody asks.
//   - The index is what Admit reads: the roll, and tries of what is allowed and
//     what the configuration blocks.
//   - The store files are the only ones with I/O. A writer makes bans durable
//     at once and counters within a second.
//
// Zero overshoot works like this: before a credential goes to the server its
// points are reserved under every rule that would count its failure. Where
// settled and reserved points together have reached a limit it waits; where
// the settled ones alone have, it is refused. The server's answer turns the
// reservation into points, or undoes it; the points that reach the limit bring
// the sentence into force before that answer is released.
//
// # Limits
//
// Tables are bounded, see [Config] and figures.go; bans are not. A ban costs 50
// to 62 bytes, all counted (BenchmarkAdmit); with widen-after some 40 more for
// each IPv6 /48 that has any, and without a store its evidence. A tracked
// address with one failure costs about 1 KB with its network and its evidence
// (BenchmarkTrackedAddress).
package guard

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mailreeve/protocol"
)

// An Origin says where something happened.
type Origin struct {
	// Addr is the client's address, unmapped and without a zone.
	Addr netip.Addr
	// Listener and Scope are the listener's name and scope.
	Listener string
	Scope    string
	// Protocol and Upstream are names from the configuration.
	Protocol string
	Upstream string
	// Conn is the connection's number, for the log.
	Conn uint64
}

// Options is what the guard needs beside its configuration.
type Options struct {
	// Store says where what must survive a restart is kept.
	Store StoreConfig
	// Log takes bans, unbans and warnings; nil: slog.Default().
	Log *slog.Logger
	// Local are our own addresses and the servers', for exempt-local. Loopback
	// is always meant.
	Local []netip.Prefix
	// Trusted are the peers that send PROXY headers. The guard only uses them
	// to notice that clients' addresses are being lost; the same address inside
	// a header has no privilege.
	Trusted []netip.Prefix
	// Aliases are the lines of alias-file: alias to login.
	Aliases map[string]string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Guard is the judge. Its methods are safe for concurrent use.
type Guard struct {
	log         *slog.Logger
	clock       *clock
	hashKey     []byte
	distinctKey [16]byte  // see distinct
	macs        sync.Pool // of *keyedHash, with hashKey
	storeConfig StoreConfig
	recovered   string

	set     atomic.Pointer[settings]
	index   *index
	ledger  ledger
	memory  *memoryLedger
	fleet   *fleet // nil unless the store is shared
	queues  *queues
	places  *places
	guesses *guesses
	pace    *pace
	trouble *trouble
	lost    lost
	stats   *stats
	writer  *writer
	watch   watchers

	quit, kept chan struct{}
	closing    sync.Once

	// changes is held while a ban or an allow entry changes and subscribers
	// are told, so that they hear of changes in order. It is taken before mu.
	changes     sync.Mutex
	subscribers []func(Change)

	mu sync.Mutex
	// What follows is under mu.
	sentences sentences
	allowLists
	blocked map[netip.Prefix]bool // blocked-ip
}

// settings are what a configuration means. They are not changed once made.
type settings struct {
	cfg       Config
	rules     rules
	counting  map[protocol.Kind]rules // see byKind
	logins    logins
	widths    widths
	honeypots map[string]bool
	traps     map[string]bool
	trusted   []netip.Prefix
}

func newSettings(cfg Config, opt *Options) *settings {
	s := &settings{
		cfg: cfg, rules: newRules(&cfg), logins: newLogins(&cfg, opt.Aliases),
		widths:    widths{cfg.IPv4Width, cfg.IPv6Width},
		honeypots: make(map[string]bool), traps: make(map[string]bool),
		trusted: opt.Trusted,
	}
	s.counting = s.rules.byKind()
	for _, l := range cfg.HoneypotLogins {
		s.honeypots[s.logins.canonical(l)] = true
	}
	for _, r := range cfg.TrapRecipients {
		s.traps[strings.ToLower(r)] = true
	}
	return s
}

// Open makes a guard with the state that the store holds.
func Open(cfg Config, opt Options) (*Guard, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	hashKey, err := prepareStore(opt.Store)
	if err != nil {
		return nil, err
	}
	set := newSettings(cfg, &opt)
	g := &Guard{
		log: opt.Log, clock: newClock(opt.Now), storeConfig: opt.Store,
		hashKey: hashKey, distinctKey: deriveDistinctKey(hashKey),
		queues: newQueues(), places: newPlaces(cfg.MaxLogins),
		guesses: newGuesses(), pace: newPace(), trouble: newTrouble(), stats: newStats(),
		quit: make(chan struct{}), kept: make(chan struct{}),
		sentences: newSentences(set.widths), blocked: make(map[netip.Prefix]bool),
		allowLists: allowLists{allows: make(map[string]Allowed), opened: make(map[string]int64)},
	}
	if g.log == nil {
		g.log = slog.Default()
	}
	g.index = newIndex(g.sentences.roll)
	g.set.Store(set)
	g.memory = newMemoryLedger(tableBounds{cfg.MaxAddresses, cfg.MaxNetworks, cfg.MaxLogins}, g.places.succeeded)
	g.ledger = g.memory
	if err := g.open(opt.Store); err != nil {
		return nil, err
	}
	g.configure(set, &opt)
	if opt.Store.Kind == "valkey" {
		g.fleet.start()
	}
	go g.keep()
	return g, nil
}

// open loads the store. Its records come before there is a writer to write to,
// so what the load wants written waits.
func (g *Guard) open(c StoreConfig) error {
	load := newLoader(g)
	disk, recovered, err := openBackend(c, load)
	if err != nil {
		return err
	}
	g.recovered = recovered
	g.sentences.roll.trim()
	g.sentences.roll.collapse()
	if disk == nil {
		g.writer = newWriter(nil, g.log)
	} else {
		g.writer = newWriter(disk, g.log)
		g.writer.disk = disk
	}
	if c.Kind == "valkey" {
		if err := g.joinFleet(c); err != nil {
			return errors.Join(err, g.writer.close())
		}
		g.fleet.resume(load.unsent)
	} else {
		for _, r := range load.unsent { // of a fleet that it has left
			load.stale = append(load.stale, record{bucket: bucketOutbox, key: outboxKey(r.record)})
		}
	}
	if load.unknown > 0 {
		g.log.Error("the store has records that this version does not know; they are ignored", "records", load.unknown)
	}
	if recovered != "" {
		g.log.Error("the store was damaged; what could be read was saved", "store", recovered)
	}
	g.writer.keep(load.stale...)
	return nil
}

// configure puts a configuration into force: allow entries, blocked-ip.
func (g *Guard) configure(set *settings, opt *Options) {
	g.reallow(func() {
		g.config = configured(&set.cfg, opt)
		clear(g.blocked)
		for _, text := range set.cfg.BlockedIP {
			p, err := ParsePrefix(text)
			if err != nil {
				continue // Validate has refused it
			}
			g.blocked[banKey(set, p).prefix] = true
		}
		g.index.block(slices.Collect(maps.Keys(g.blocked)))
		g.sentences.watchCrowds(&g.mu, set.cfg.WidenAfter > 0)
	})
}

// Close writes what is not yet written and closes the store. Attempts that
// wait go on waiting until their context ends.
func (g *Guard) Close() error {
	var err error
	g.closing.Do(func() {
		close(g.quit)
		<-g.kept
		g.flush()
		if g.fleet != nil {
			g.fleet.close()
		}
		err = g.writer.close()
	})
	return err
}

// Reconfigure takes another configuration; state and running attempts stay.
// Of opt, Store, Log and Now are not looked at. On an error nothing changes.
func (g *Guard) Reconfigure(cfg Config, opt Options) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	old := g.set.Load()
	if w := (widths{cfg.IPv4Width, cfg.IPv6Width}); w != old.widths {
		return fmt.Errorf("guard.ipv4-width, guard.ipv6-width: a change needs a restart")
	}
	set := newSettings(cfg, &opt)
	g.set.Store(set)
	g.memory.resize(tableBounds{cfg.MaxAddresses, cfg.MaxNetworks, cfg.MaxLogins})
	g.configure(set, &opt)
	return nil
}

// trusted tells whether an address is a peer that sends PROXY headers.
func (g *Guard) trusted(a netip.Addr) bool {
	return slices.ContainsFunc(g.set.Load().trusted, func(p netip.Prefix) bool { return p.Contains(a) })
}

// A Decision is the guard's answer about a credential or an event.
type Decision struct {
	Verdict protocol.Verdict
	// Rule is the rule that decided, "" with Pass.
	Rule string
	// Simulated is the rule that would have decided, were it not for a dry run.
	Simulated string
	// Delay is how long to hold the answer back; mostly zero.
	Delay time.Duration
}

// Admit tells whether a connection may come in: Pass, Soft or Banned. It reads
// memory only and never waits. The network table is asked about o.Addr as it
// is, the address table about what counts as one address.
func (g *Guard) Admit(o *Origin) protocol.Verdict {
	if g.index.empty() {
		return protocol.Pass
	}
	// Most connections are of no banned address: for those the clock is not
	// asked. At time 0 no ban has ended.
	end := g.index.lookup(o.Addr, 0, o.Scope, o.Listener, "all")
	if end == 0 {
		return protocol.Pass
	}
	// Of a ban that does not end in the next seconds it need not be known how
	// late it is: on many machines that takes longer than all the rest.
	now := g.clock.lately.Load()
	if end.over(now + clockLag) {
		now = g.clock.milli()
		end = g.index.lookup(o.Addr, now, o.Scope, o.Listener, "all")
	}
	switch {
	case end == 0:
		return protocol.Pass
	case g.index.allowed(o.Addr.Unmap(), now) && g.index.allowed(o.Addr.Unmap(), g.clock.milli()):
		return protocol.Pass
	case end.soft():
		return protocol.Soft
	}
	return protocol.Banned
}
