package guard

import (
	"math"
	"net/netip"
	"time"
)

// load takes an entry from the store.
func (l *memoryLedger) load(k key, value []byte, now int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.entries[k] != nil {
		return nil // of a damaged store, read twice
	}
	windows, err := decodeEntry(value, l.commons)
	if err != nil {
		return err
	}
	for _, stored := range windows {
		c := claim{key: k, rule: stored.rule, good: stored.good, terms: stored.terms}
		e, w := l.windowLocked(math.MinInt64/2, &c)
		for _, m := range stored.marks {
			m.at = min(m.at, now)
			w.charge(m, c.keep)
			e.touched = max(e.touched, m.at)
		}
		w.refresh(now)
		// What had reached its limit when the process died gets its sentence
		// with the next attempt, see overdue.
	}
	if e := l.entries[k]; e != nil && e.empty() {
		l.removeLocked(e)
		return nil
	}
	delete(l.dirty, k)
	return nil
}

// drainBatch is how many entries are encoded at a time, so that nobody waits
// long for the ledger.
const drainBatch = 64

// drain gives the entries that changed since the last call, encoded.
func (l *memoryLedger) drain(now int64) []record {
	dirty := l.takeDirty()
	out := make([]record, 0, len(dirty))
	for len(dirty) > 0 {
		l.mu.Lock()
		n := drainBatch
		for k := range dirty {
			delete(dirty, k)
			out = append(out, l.recordLocked(k, now))
			if n--; n == 0 {
				break
			}
		}
		l.mu.Unlock()
	}
	return out
}

// takeDirty gives the keys whose entries changed since the last call.
func (l *memoryLedger) takeDirty() map[key]struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	dirty := l.dirty
	l.dirty = make(map[key]struct{})
	return dirty
}

// record gives the entry of a key as it is now.
func (l *memoryLedger) record(k key, now int64) record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recordLocked(k, now)
}

func (l *memoryLedger) recordLocked(k key, now int64) record {
	r := record{bucket: bucketMarks, key: string(appendKey(nil, k))}
	if e := l.entries[k]; e != nil {
		r.value = e.encode(now)
	}
	return r
}

// resize changes the bounds of the tables; what is over them goes as new
// entries come.
func (l *memoryLedger) resize(b tableBounds) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bounds = b
}

// sweep drops entries in which every mark has expired.
func (l *memoryLedger) sweep(now int64, most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.slimLocked()
	l.sweepTricklesLocked(now)
	// Maps are walked from a random place, so a part at a time reaches all.
	for _, e := range l.entries {
		for i := range e.windows {
			e.windows[i].refresh(now)
		}
		if e.empty() {
			l.removeLocked(e)
		}
		if most--; most == 0 {
			return
		}
	}
}

// keep runs until the guard is closed: it makes counters durable, announces
// bans that end, and forgets what is over.
func (g *Guard) keep() {
	defer close(g.kept)
	flush, janitor := time.NewTicker(flushEvery), time.NewTicker(janitorEvery)
	defer flush.Stop()
	defer janitor.Stop()
	for {
		select {
		case <-g.quit:
			return
		case <-flush.C:
			g.flush()
		case <-janitor.C:
			now := g.clock.now().UnixMilli()
			g.expire(now)
			g.expireAllowed(now)
			g.guesses.sweep(now)
			g.pace.sweep(now)
			g.places.sweep(now)
			g.stats.falseBans.sweep(now, func(p netip.Prefix) bool { return g.bannedAnywhere(p, now) })
			g.memory.sweep(now, sweepMost)
			g.reviewAll(now)
		}
	}
}

// sweepMost bounds the entries looked at in one sweep.
const sweepMost = 10000

// flush hands what changed to the writer.
func (g *Guard) flush() {
	if g.writer.backend == nil && g.fleet == nil {
		// There is nowhere to write it.
		g.memory.takeDirty()
		g.memory.drainTrickles()
		g.places.drain(func(string, []place) {})
		return
	}
	now := g.clock.now().UnixMilli()
	if records := g.memory.drain(now); len(records) > 0 {
		g.writer.put(records...)
	}
	if records := g.memory.drainTrickles(); len(records) > 0 {
		g.writer.keep(records...) // a shared store has its own
	}
	g.places.drain(func(login string, list []place) {
		r := record{bucket: bucketPlaces, key: login}
		if len(list) > 0 {
			r.value = encodeJSON(list)
		}
		g.writer.put(r)
	})
}
