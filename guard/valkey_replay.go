package guard

import (
	"context"
	"slices"
	"time"

	"github.com/valkey-io/valkey-go"
)

// replayTimeout bounds one call while the store is being told what it missed.
const replayTimeout = 2 * time.Second

// replay sends the steps that the store has missed, and tells how many it was.
// With again it first sends those of late that a failover may have lost. Each
// has a name, so what the store knows already does not count twice.
func (l *fleetLedger) replay(ctx context.Context, c valkey.Client, again bool) (int, error) {
	l.mu.Lock()
	todo := l.unsent
	l.unsent, l.sending = nil, todo
	var sent []*ledgerStep
	if again {
		young := l.link.now() - resendWithin.Milliseconds()
		l.sent = slices.DeleteFunc(l.sent, func(st *ledgerStep) bool { return st.at < young })
		sent = slices.Clone(l.sent)
	}
	l.mu.Unlock()
	defer l.allSent()
	for _, st := range sent {
		if err := l.send(ctx, c, st); err != nil {
			l.putBack(todo)
			return 0, err
		}
	}
	for i, st := range todo {
		if err := l.send(ctx, c, st); err != nil {
			l.putBack(todo[i:])
			return i, err
		}
		l.remind(st)
	}
	return len(todo), nil
}

// allSent says that no steps are on their way any more.
func (l *fleetLedger) allSent() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sending = nil
}

// putBack puts steps back in front of what has come since.
func (l *fleetLedger) putBack(steps []*ledgerStep) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsent = append(slices.Clip(steps), l.unsent...)
}

// send sends a step late.
func (l *fleetLedger) send(ctx context.Context, c valkey.Client, st *ledgerStep) error {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	if st.clear != nil {
		_, err := l.store.clear(ctx, c, st.key, l.link.now(), st.at, st.closed, st.clear)
		return err
	}
	if st.trickle != "" {
		return l.sendPardon(ctx, c, st)
	}
	st.now = max(l.link.now(), st.at)
	totals, err := l.store.settle(ctx, c, st)
	l.trip(totals)
	if err == nil && l.late != nil && slices.ContainsFunc(totals, func(t total) bool { return t.tripped }) {
		l.late(st.ev, totals)
	}
	return err
}

// refill sends all that memory has counted: the store lacks it.
func (l *fleetLedger) refill(ctx context.Context, c valkey.Client) error {
	l.setRefillDue(false) // unless more is missed meanwhile
	return l.sendAgain(ctx, c, l.local.steps(l.link.ahead.Load()))
}

// refillGood sends the good recipients that memory has counted. It goes before
// all else that the store is told after a loss: the bad ones without these would
// ban who mostly writes to good ones.
func (l *fleetLedger) refillGood(ctx context.Context, c valkey.Client) error {
	return l.sendAgain(ctx, c, l.local.goodSteps(l.link.ahead.Load()))
}

// sendAgain sends steps that memory has. If that fails it is still to be done.
func (l *fleetLedger) sendAgain(ctx context.Context, c valkey.Client, steps []*ledgerStep) error {
	for _, st := range steps {
		if err := l.send(ctx, c, st); err != nil {
			l.setRefillDue(true)
			return err
		}
	}
	return nil
}

func (l *fleetLedger) setRefillDue(due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refillDue = due
}

// isRefillDue tells whether only memory's copy has all steps.
func (l *fleetLedger) isRefillDue() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refillDue
}

// steps gives the steps that led to what memory has counted. A mark without a
// name was not made here.
func (l *memoryLedger) steps(ahead int64) []*ledgerStep {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*ledgerStep
	for _, e := range l.entries {
		for i := range e.windows {
			w := &e.windows[i]
			for _, m := range w.marks {
				if m.trace == nil || m.id == "" {
					continue
				}
				c := claim{key: e.key, rule: w.rule, points: m.points, value: m.value, good: w.good, hard: m.hard, terms: w.terms}
				out = append(out, &ledgerStep{id: m.id, at: m.at + ahead, claims: []claim{c}, charge: true, ev: m.event()})
			}
		}
	}
	slices.SortFunc(out, func(a, b *ledgerStep) int { return int(a.at - b.at) })
	return out
}

// goodSteps gives steps that make the good recipients that memory has counted.
// Those of one sender that were counted within the time in which none is counted
// again are one step, at the time of the first. A value counts once, however
// often it is sent.
func (l *memoryLedger) goodSteps(ahead int64) []*ledgerStep {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*ledgerStep
	for _, e := range l.entries {
		for i := range e.windows {
			w := &e.windows[i]
			if !w.good {
				continue
			}
			var st *ledgerStep
			for _, m := range w.marks {
				if st == nil || m.value == 0 || m.at+ahead >= st.at+w.period.Milliseconds()/goodAgain {
					st = &ledgerStep{id: newID(), at: m.at + ahead, charge: true}
					out = append(out, st)
				}
				st.claims = append(st.claims, claim{key: e.key, rule: w.rule, points: m.points, value: m.value, good: true, terms: w.terms})
			}
		}
	}
	return out
}

// renew prolongs the leases of this node's reservations that have been out for
// a while.
func (l *fleetLedger) renew(ctx context.Context, c valkey.Client) error {
	due := make(map[key][]string)
	l.mu.Lock()
	for hold, h := range l.holds {
		if time.Since(h.since) < l.store.lease/4 {
			continue
		}
		for _, k := range h.keys {
			due[k] = append(due[k], hold)
		}
		h.since = time.Now()
		l.holds[hold] = h
	}
	l.mu.Unlock()
	for k, holds := range due {
		ctx, cancel := context.WithTimeout(ctx, replayTimeout)
		err := l.store.renew(ctx, c, k, holds)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// keep keeps a step that the store has missed.
func (l *fleetLedger) keep(st *ledgerStep) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.unsent) >= maxUnsent {
		l.unsent = append(l.unsent[:0], l.unsent[maxUnsent/2:]...)
		clear(l.unsent[len(l.unsent):cap(l.unsent)])
		l.refillDue = true
	}
	l.unsent = append(l.unsent, st)
	if l.hurry != nil && l.link.client() != nil {
		l.hurry()
	}
}

// remind remembers a step that the store has taken, for a while.
func (l *fleetLedger) remind(st *ledgerStep) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sent) >= maxSent {
		l.sent = append(l.sent[:0], l.sent[maxSent/2:]...)
		clear(l.sent[len(l.sent):cap(l.sent)])
	}
	l.sent = append(l.sent, st)
}

// buffered tells how many steps the store has missed.
func (l *fleetLedger) buffered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.unsent)
}

// lacks tells whether the store has missed steps at keys of these claims. Until
// it has been told, what it says of them is too little: this node's own count
// holds, too.
func (l *fleetLedger) lacks(claims []claim) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, list := range [][]*ledgerStep{l.unsent, l.sending} {
		for _, st := range list {
			if st.charge && slices.ContainsFunc(st.claims, func(c claim) bool {
				return slices.ContainsFunc(claims, func(o claim) bool { return o.key == c.key && o.rule == c.rule })
			}) {
				return true
			}
		}
	}
	return false
}
