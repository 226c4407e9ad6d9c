package guard

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A memoryLedger counts in this process's memory. Its tables are bounded; see
// evict.go.
type memoryLedger struct {
	bounds tableBounds

	mu       sync.Mutex
	entries  map[key]*entry
	crowds   crowds
	trickles map[string]*trickle
	byKind   [4][]*entry // entries by keyKind, for sampling
	evicted  [4]uint64
	dirty    map[key]struct{}
	// dirtyTrickles are the logins whose trickle is to be written.
	dirtyTrickles map[string]struct{}
	most          struct{ entries, nets, trickles int } // see slim

	// succeeded tells whether a login ever succeeded; such ones outlive
	// others. It must not call the ledger.
	succeeded func(login string) bool
	random    *rand.Rand
	commons   commons
}

// An entry holds all windows of one key.
type entry struct {
	key     key
	windows []ruleWindow
	touched int64
	// slot is the entry's place in byKind; crowd and crowdSlot are those of
	// an address.
	slot      int
	crowd     *crowd
	crowdSlot int
}

type ruleWindow struct {
	rule string
	good bool
	terms
	window
}

func newMemoryLedger(b tableBounds, succeeded func(string) bool) *memoryLedger {
	return &memoryLedger{
		bounds:        b,
		entries:       make(map[key]*entry),
		crowds:        crowds{byNet: make(map[netip.Prefix]*crowd)},
		trickles:      make(map[string]*trickle),
		dirty:         make(map[key]struct{}),
		dirtyTrickles: make(map[string]struct{}),
		commons:       make(commons),
		succeeded:     succeeded,
		random:        rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}
}

// windowLocked gives the claim's window with its marks up to date, making it
// if need be.
func (l *memoryLedger) windowLocked(now int64, c *claim) (*entry, *ruleWindow) {
	e := l.entries[c.key]
	if e == nil {
		e = l.addLocked(c.key)
	}
	e.touched = now
	for i := range e.windows {
		w := &e.windows[i]
		if w.rule == c.rule && w.good == c.good {
			w.terms = c.terms
			w.refresh(now)
			return e, w
		}
	}
	// Most entries never have another: no room is made for it.
	windows := make([]ruleWindow, len(e.windows), len(e.windows)+1)
	copy(windows, e.windows)
	e.windows = append(windows, ruleWindow{rule: c.rule, good: c.good, terms: c.terms})
	return e, &e.windows[len(e.windows)-1]
}

func (w *ruleWindow) refresh(now int64) {
	w.expire(now, w.period.Milliseconds())
	if w.sum < w.limit {
		w.tripped = false
	}
}

func (l *memoryLedger) reserve(now time.Time, claims []claim) (grant, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ms := now.UnixMilli()
	for i := range claims {
		c := &claims[i]
		_, w := l.windowLocked(ms, c)
		switch w.room(c.value, c.limit) {
		case roomWait:
			l.tidyLocked(claims[:i+1])
			return full, i
		case roomNone:
			if !c.yields {
				l.tidyLocked(claims[:i+1])
				return over, i
			}
		}
	}
	for i := range claims {
		c := &claims[i]
		_, w := l.windowLocked(ms, c)
		w.reserve(c.value, c.points)
		l.dirty[c.key] = struct{}{}
	}
	return granted, 0
}

// tidyLocked removes the entries that claims have touched and left empty.
func (l *memoryLedger) tidyLocked(claims []claim) {
	for i := range claims {
		if e := l.entries[claims[i].key]; e != nil && e.empty() {
			l.removeLocked(e)
		}
	}
}

func (l *memoryLedger) settle(now time.Time, claims []claim, charge bool, ev *Event) []total {
	l.mu.Lock()
	defer l.mu.Unlock()
	ms := now.UnixMilli()
	for i := range claims {
		c := &claims[i]
		_, w := l.windowLocked(ms, c)
		w.release(c.value, c.points)
		l.dirty[c.key] = struct{}{}
	}
	if !charge {
		l.tidyLocked(claims)
		return nil
	}
	return l.chargeLocked(ms, claims, ev)
}

func (l *memoryLedger) charge(now time.Time, claims []claim, ev *Event) []total {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.chargeLocked(now.UnixMilli(), claims, ev)
}

func (l *memoryLedger) chargeLocked(now int64, claims []claim, ev *Event) []total {
	totals := make([]total, 0, len(claims))
	var seen *trace
	for i := range claims {
		c := &claims[i]
		if seen == nil && !c.good { // nobody is ever asked to explain good ones
			seen = l.commons.trace(ev)
		}
		e, w := l.windowLocked(now, c)
		l.markLocked(now, c, w, seen)
		t := total{key: c.key, rule: c.rule, sum: w.sum, limit: c.limit}
		if !c.good && !w.tripped && e.trips(w, c) {
			w.tripped, t.tripped = true, true
		}
		totals = append(totals, t)
	}
	return totals
}

// markLocked adds a claim's mark to its window.
func (l *memoryLedger) markLocked(now int64, c *claim, w *ruleWindow, seen *trace) {
	m := mark{at: now, points: c.points, value: c.value, hard: c.hard}
	if !c.good {
		m.trace = seen
	}
	w.charge(m, c.keep)
	l.dirty[c.key] = struct{}{}
}

func (l *memoryLedger) note(now time.Time, c claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ms := now.UnixMilli(); !l.notedLocked(ms, &c) {
		_, w := l.windowLocked(ms, &c)
		l.markLocked(ms, &c, w, nil)
	}
}

// noted tells whether a good recipient need not be counted again.
func (l *memoryLedger) noted(now time.Time, c *claim) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.notedLocked(now.UnixMilli(), c)
}

func (l *memoryLedger) notedLocked(now int64, c *claim) bool {
	e := l.entries[c.key]
	if e == nil {
		return false
	}
	e.touched = now
	for i := range e.windows {
		if w := &e.windows[i]; w.good && w.rule == c.rule {
			return w.hasSince(c.value, now-c.period.Milliseconds()/goodAgain)
		}
	}
	return false
}

// trips tells whether a window has reached its limit. Most of a big sender's
// recipients are good: for such a rule the share must be bad as well, until
// the points are a multiple of the limit.
func (e *entry) trips(w *ruleWindow, c *claim) bool {
	if w.sum < c.limit {
		return false
	}
	if !c.share || w.sum >= shareUntil*c.limit {
		return true
	}
	hard, bad := w.hard()
	if hard >= c.limit {
		return true
	}
	good := 0
	for i := range e.windows {
		if g := &e.windows[i]; g.good && g.rule == c.rule {
			g.refresh(e.touched)
			good = len(g.marks)
		}
	}
	return float64(bad) >= shareNeeded*float64(bad+good)
}

func (l *memoryLedger) clear(k key, upto int64, which func(rule string) bool) []cleared {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[k]
	if e == nil {
		return nil
	}
	var out []cleared
	for i := range e.windows {
		w := &e.windows[i]
		if !which(w.rule) || len(w.marks) == 0 || w.marks[0].at > upto {
			continue
		}
		marks, sum := w.forget(upto)
		if !w.good {
			out = append(out, cleared{key: k, rule: w.rule, sum: sum, marks: marks})
		}
	}
	l.dirty[k] = struct{}{}
	if e.empty() {
		l.removeLocked(e)
	}
	return out
}

func (l *memoryLedger) read(now time.Time, k key, find func(string) (terms, bool)) []reading {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[k]
	if e == nil {
		return nil
	}
	return e.read(now.UnixMilli(), find)
}

func (e *entry) read(now int64, find func(string) (terms, bool)) []reading {
	var out []reading
	for i := range e.windows {
		w := &e.windows[i]
		if t, ok := find(w.rule); ok && !w.good {
			w.terms = t
			w.refresh(now)
			if !w.empty() {
				out = append(out, reading{key: e.key, rule: w.rule, sum: w.sum, pending: w.reserved(), marks: slices.Clone(w.marks)})
			}
		}
	}
	return out
}

// sum gives the settled points of one window. Of a shared store it is what this
// node knows.
func (l *memoryLedger) sum(now time.Time, k key, rule string) milli {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[k]
	if e == nil {
		return 0
	}
	for i := range e.windows {
		if w := &e.windows[i]; w.rule == rule && !w.good {
			w.refresh(now.UnixMilli())
			return w.sum
		}
	}
	return 0
}

// each calls f with the key of every entry, until it returns false.
func (l *memoryLedger) each(f func(k key) bool) {
	l.mu.Lock()
	keys := make([]key, 0, len(l.entries))
	for k := range l.entries {
		keys = append(keys, k)
	}
	l.mu.Unlock()
	for _, k := range keys {
		if !f(k) {
			return
		}
	}
}

// empty tells that no window of the entry has anything to remember.
func (e *entry) empty() bool {
	for i := range e.windows {
		if !e.windows[i].empty() {
			return false
		}
	}
	return true
}

func (e *entry) pending() bool {
	for i := range e.windows {
		if len(e.windows[i].pending) > 0 {
			return true
		}
	}
	return false
}

// points gives the sum over the entry's windows, without expiring.
func (e *entry) points() milli {
	var sum milli
	for i := range e.windows {
		sum += e.windows[i].sum
	}
	return sum
}

// sizes gives the entries and evictions by kind of key.
func (l *memoryLedger) sizes() (counts [4]int, evicted [4]uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.byKind {
		counts[i] = len(l.byKind[i])
	}
	return counts, l.evicted
}
