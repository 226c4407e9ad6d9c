package guard

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"
)

// A fleetLedger counts in a store that many proxies share. While the store is
// away it counts in this process's memory, in which it keeps a copy of all
// that this node counts, and sends later what the store has missed.
//
// # How a reservation of several keys stays exact
//
// On a single server a reservation is one call, so one atomic step. In a
// Cluster it takes one call for each hash slot: the address and its network
// share one, the login and its places another. The calls are made in the order
// of the slots' tags; each takes points or finds no room; if one finds none,
// what the earlier ones took is given back. No call takes points that do not
// fit, so no limit is overshot at any moment. What is taken and given back is
// unsettled all the time, so it can make others wait, but never be refused;
// and as all nodes go in the same order, of two that want the last points of
// two keys one gets both.
type fleetLedger struct {
	local   *memoryLedger
	store   counters
	records script
	// rules gives the names of the rules in force.
	rules func() []string
	// link is the way to the store.
	link *link
	// late is told what the store says about steps that it was told late.
	late func(ev *Event, totals []total)

	// gate bounds the calls under way. A burst of connections must not make
	// the store so slow for its own callers that they give it up and count
	// alone. Who has found no place at the gate in time while the store
	// answers others waits as if the limit were full of reservations: whoever
	// could make nodes count alone by a burst could overshoot.
	gate chan struct{}
	// hurry asks for a look at the store soon, which sends what is unsent.
	hurry func()

	mu sync.Mutex
	// holds are this node's reservations by name, for their leases.
	holds map[string]held
	// unsent are the steps that the store has missed, oldest first, sending
	// those of them that are on their way, and sent those of late that it has
	// not: a failover may lose them.
	unsent, sending, sent []*ledgerStep
	// tripped are the windows whose sentence is being pronounced here.
	tripped map[windowID]bool
	// closes tells whether a rule's sentence is carried out, so that its
	// window is closed until all have heard of it; nil: none is.
	closes func(rule string) bool
	// refillDue: the store lacks steps that are not kept here, for they were too
	// many or it had them and lost them; the copy in memory has their points.
	refillDue bool
}

type windowID struct {
	key  key
	rule string
}

type held struct {
	keys  []key
	since time.Time
}

const (
	// maxUnsent bounds the steps kept while the store is away, about 500
	// bytes each. Beyond it what counts is sent from memory's copy.
	maxUnsent = 20_000
	// resendWithin is for how long a step is sent again after the store was
	// away: replication lags less, or the replica is not worth promoting.
	resendWithin = 30 * time.Second
	maxSent      = 20_000
	// maxCalls is how many calls a node has under way at most: two nodes keep a
	// store's core busy with it, and with a hundred nodes in a burst at once
	// a call still takes less than the timeout.
	maxCalls = 4
	// closedFor is for how long nobody gets points of a window whose sentence
	// has just been pronounced. The word of it takes milliseconds; a node that
	// stalls for longer than this lets through what the limit allows once more.
	closedFor = 5 * time.Second
)

func newFleetLedger(local *memoryLedger, k *link, n names, split bool, rules func() []string, late func(*Event, []total)) *fleetLedger {
	return &fleetLedger{
		local: local, link: k, rules: rules, late: late, holds: make(map[string]held), tripped: make(map[windowID]bool),
		gate:    make(chan struct{}, maxCalls),
		records: newScript(recordsScript), store: counters{names: n, script: newScript(ledgerScript), split: split, lease: defaultLease, bad: k.badValues},
	}
}

// fleet gives a time as the fleet's, in milliseconds.
func (l *fleetLedger) fleet(now time.Time) int64 { return now.UnixMilli() + l.link.ahead.Load() }

// own gives a fleet's time as this node's.
func (l *fleetLedger) own(at int64) int64 { return at - l.link.ahead.Load() }

// do makes a call to the store. With its time at the gate it takes at most as
// long as a credential may wait. It fails at once while the store is away.
func (l *fleetLedger) do(f func(ctx context.Context, c valkey.Client) error) error {
	if l.link.client() == nil {
		return errAway
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.link.timeout)
	defer cancel()
	select {
	case l.gate <- struct{}{}:
		defer func() { <-l.gate }()
	case <-ctx.Done():
		return errBusy
	}
	c := l.link.client() // it may have gone away meanwhile
	if c == nil {
		return errAway
	}
	err := f(ctx, c)
	l.link.heard(err)
	return err
}

func (l *fleetLedger) reserve(now time.Time, claims []claim) (grant, int) {
	if len(claims) == 0 {
		return granted, 0
	}
	hold := newID()
	for i := range claims {
		claims[i].hold = hold
	}
	var g grant
	var at int
	sent := false
	// Until then it waits for an answer, with its time at the gate.
	deadline := l.link.now() + l.link.timeout.Milliseconds()
	err := l.do(func(ctx context.Context, c valkey.Client) (err error) {
		sent = true
		g, at, err = l.store.reserve(ctx, c, l.fleet(now), deadline, claims)
		return err
	})
	if errors.Is(err, errBusy) && l.link.answers() {
		return full, 0
	}
	if err != nil {
		if sent {
			// The answer may have been lost, not the question.
			l.keep(&ledgerStep{id: newID(), at: l.fleet(now), claims: slices.Clone(claims), release: true})
		}
		g, at = l.local.reserve(now, claims)
	} else if g == granted && l.lacks(claims) {
		if g, at = l.local.reserve(now, claims); g != granted {
			l.keep(&ledgerStep{id: newID(), at: l.fleet(now), claims: slices.Clone(claims), release: true})
		}
	} else if g == granted {
		l.local.hold(now, claims)
	}
	if g == granted {
		l.remember(hold, claims)
	}
	return g, at
}

// remember keeps a reservation in mind until it is settled.
func (l *fleetLedger) remember(hold string, claims []claim) {
	h := held{since: time.Now()}
	for i := range claims {
		if !slices.Contains(h.keys, claims[i].key) {
			h.keys = append(h.keys, claims[i].key)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds[hold] = h
}

func (l *fleetLedger) settle(now time.Time, claims []claim, charge bool, ev *Event) []total {
	if len(claims) == 0 {
		return nil
	}
	id := claims[0].hold
	l.mu.Lock()
	delete(l.holds, id)
	l.mu.Unlock()
	if id == "" {
		id = newID()
	}
	return l.step(now, &ledgerStep{id: id, at: l.fleet(now), claims: claims, release: true, charge: charge, ev: ev},
		func() []total { return l.local.settle(now, claims, charge, ev) })
}

func (l *fleetLedger) charge(now time.Time, claims []claim, ev *Event) []total {
	if len(claims) == 0 {
		return nil
	}
	return l.step(now, &ledgerStep{id: newID(), at: l.fleet(now), claims: claims, charge: true, ev: ev},
		func() []total { return l.local.charge(now, claims, ev) })
}

func (l *fleetLedger) note(now time.Time, c claim) {
	if !l.local.noted(now, &c) {
		l.charge(now, []claim{c}, nil)
	}
}

// step takes a step here and in the store, and gives what the store says, or
// while it is away what memory says.
func (l *fleetLedger) step(now time.Time, st *ledgerStep, here func() []total) []total {
	if st.ev != nil {
		st.ev.ID = st.id
	}
	alone := here()
	var totals []total
	err := l.do(func(ctx context.Context, c valkey.Client) (err error) {
		st.now = l.fleet(now)
		totals, err = l.store.settle(ctx, c, st)
		return err
	})
	if err != nil {
		l.keep(st)
		return alone
	}
	l.remind(st)
	if l.lacks(st.claims) {
		for i := range totals {
			totals[i].tripped = totals[i].tripped || alone[i].tripped
		}
	}
	l.trip(totals)
	return totals
}

// ownTimes gives marks of the store with this node's times.
func (l *fleetLedger) ownTimes(marks []mark) []mark {
	for i := range marks {
		marks[i].at = l.own(marks[i].at)
	}
	return marks
}

func (l *fleetLedger) read(now time.Time, k key, find func(string) (terms, bool)) []reading {
	var views []storedView
	err := l.do(func(ctx context.Context, c valkey.Client) (err error) {
		views, err = l.store.read(ctx, c, k, l.fleet(now))
		return err
	})
	if err != nil {
		return l.local.read(now, k, find)
	}
	e := entry{key: k}
	for i := range views {
		v := &views[i]
		w := ruleWindow{rule: v.rule, good: v.good, window: window{marks: l.ownTimes(v.marks), pending: v.pending}}
		for _, m := range v.marks {
			w.sum += m.points
		}
		e.windows = append(e.windows, w)
	}
	return e.read(now.UnixMilli(), find)
}

// hold reserves without asking for room: the shared store has granted it.
func (l *memoryLedger) hold(now time.Time, claims []claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range claims {
		_, w := l.windowLocked(now.UnixMilli(), &claims[i])
		w.reserve(claims[i].value, claims[i].points)
		l.dirty[claims[i].key] = struct{}{}
	}
}
