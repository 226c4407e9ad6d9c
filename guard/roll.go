package guard

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync/atomic"
)

// A roll has all sentences on addresses and networks, in a hash table with open
// addressing. Readers take no lock and allocate nothing; writers are serialised
// by the caller.
//
// A row has 40 bytes, and at least two thirds of the rows are in use, so a
// sentence costs 50 to 60. Before the table there is a filter, see [nets]: with
// a million bans it is 2 MB, which mostly stay in the processor's cache where the
// rows do not, and of a hundred clients that are not banned it lets two through.
// The table is in 1,024 parts, which grow one by one: who bans the millionth
// address waits for a thousand rows to be moved, and readers never wait.
//
// Nor is there an order by time: each part knows a moment before which nothing
// happens to its rows, and is gone through when that has come.
type roll struct {
	seed   uint64
	widths widths
	classes
	parts [rollParts]atomic.Pointer[rollPart]
	live  atomic.Int64
	nets  nets
}

const (
	rollParts = 1024
	partBits  = 10
	leastRows = 8
)

// A rollPart is a part of the table. All but its rows is the writer's.
type rollPart struct {
	rows []row
	used int   // rows that are not free; some may be gone
	live int   // rows that are not gone
	due  int64 // nothing happens to any row before
}

func newRoll(w widths) *roll {
	return &roll{seed: rand.Uint64(), widths: w, classes: classes{numbers: make(map[class]uint32)}}
}

// hash mixes a network. The table is filled by those who are banned, so the
// seed keeps them from choosing their rows.
func (r *roll) hash(hi, lo uint64, width int) uint64 {
	a, b := bits.Mul64(hi^r.seed^0x9e3779b97f4a7c15, lo^bits.RotateLeft64(r.seed, 32)^0xd6e8feb86659fd93^uint64(width)<<56)
	h := a ^ b
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return h ^ h>>32
}

// part gives the part for a hash.
func (r *roll) part(hash uint64) *atomic.Pointer[rollPart] { return &r.parts[hash>>(64-partBits)] }

// first gives the row at which the search for a hash begins.
func (p *rollPart) first(hash uint64) int {
	return int(hash & (1<<32 - 1) * uint64(len(p.rows)) >> 32)
}

// after gives the row behind another.
func (p *rollPart) after(i int) int {
	if i++; i == len(p.rows) {
		return 0
	}
	return i
}

// ban gives the state of the ban of just this network in one of the scopes, a
// hard one before a soft one; with none named, in any. It is 0 if there is none.
func (r *roll) ban(hash, hi, lo uint64, width int, now int64, scopes []string) (found banEnd) {
	p := r.part(hash).Load()
	if p == nil {
		return 0
	}
	for i := p.first(hash); ; i = p.after(i) {
		row := &p.rows[i]
		e := banEnd(row.state.Load())
		switch {
		case e == 0:
			return found
		case row.lo.Load() != lo || row.hi.Load() != hi || e.width() != width || e&endEnforced == 0 || e.over(now):
			continue
		case len(scopes) > 0 && !slices.Contains(scopes, r.classes.of(row.class()).scope):
			continue
		case !e.soft():
			return e
		}
		found = e
	}
}

// find gives the row of a sentence, and its hash.
func (r *roll) find(k *sentenceKey) (found *row, hash uint64) {
	hi, lo := words(k.key.prefix.Addr())
	network := k.network()
	hash = r.hash(hi, lo, network.width())
	p := r.part(hash).Load()
	if p == nil {
		return nil, hash
	}
	for i := p.first(hash); ; i = p.after(i) {
		row := &p.rows[i]
		e := banEnd(row.state.Load())
		if e == 0 {
			return nil, hash
		}
		if row.lo.Load() == lo && row.hi.Load() == hi && e&(endNetwork|endGone) == network && r.classes.of(row.class()).is(k) {
			return row, hash
		}
	}
}

// put adds or changes a sentence.
func (r *roll) put(s *sentence) {
	class := r.classes.number(s.class())
	row, hash := r.find(&s.sentenceKey)
	at := r.part(hash)
	var was banEnd
	var wasClass uint32
	if row != nil {
		was, wasClass = banEnd(row.state.Load()), row.class()
	} else {
		p := at.Load()
		if p == nil || 16*p.used >= 13*len(p.rows) {
			p = r.grown(p)
			at.Store(p)
		}
		row = p.free(hash)
		r.live.Add(1)
	}
	row.fill(s, class)
	r.recount(row, hash, was, wasClass)
	p := at.Load()
	p.due = min(p.due, row.next())
}

// drop takes a sentence out. Its row stays used until the part is made anew.
func (r *roll) drop(k *sentenceKey) {
	row, hash := r.find(k)
	if row == nil {
		return
	}
	was, class := banEnd(row.state.Load()), row.class()
	row.state.Store(uint64(was&endNetwork | endInUse | endGone))
	r.recount(row, hash, was, class)
	r.live.Add(-1)
	at := r.part(hash)
	p := at.Load()
	switch p.live--; {
	case p.live == 0:
		at.Store(nil)
	case p.live < len(p.rows)/3 && len(p.rows) >= 4*leastRows:
		at.Store(r.grown(p))
	}
}

// free gives a free row for a hash, for which there must be one.
func (p *rollPart) free(hash uint64) *row {
	i := p.first(hash)
	for p.rows[i].state.Load() != 0 {
		i = p.after(i)
	}
	p.used++
	p.live++
	return &p.rows[i]
}

// grown makes a part anew, with half as many rows more than live. It takes all
// the memory that such a piece comes with.
func (r *roll) grown(p *rollPart) *rollPart {
	if p == nil {
		return &rollPart{rows: make([]row, leastRows), due: forever}
	}
	rows := append([]row(nil), make([]row, max(leastRows, p.live*3/2))...)
	next := &rollPart{rows: rows[:cap(rows)], due: p.due}
	for i := range p.rows {
		old := &p.rows[i]
		if e := banEnd(old.state.Load()); e.live() {
			next.free(r.hash(old.hi.Load(), old.lo.Load(), e.width())).copyFrom(old)
		}
	}
	return next
}

// recount counts a row as it is, and no more as it was. What is in force before
// and after is not missed in between.
func (r *roll) recount(row *row, hash uint64, was banEnd, wasClass uint32) {
	is := banEnd(row.state.Load())
	if is&endActive != 0 {
		r.classes.count(row.class(), 1)
	}
	if was&endActive != 0 {
		r.classes.count(wasClass, -1)
	}
	switch enforced := is&endEnforced != 0; {
	case enforced == (was&endEnforced != 0):
	case enforced:
		r.nets.add(r, is, hash)
	default:
		r.nets.remove(r, was)
	}
}

// whole tells whether a row of that state is about what counts as one address.
func (r *roll) whole(e banEnd) bool {
	if e&endIPv4 != 0 {
		return e.width() == r.widths.v4
	}
	return e.width() == r.widths.v6
}

// each calls f with the rows of a part.
func (r *roll) each(part int, f func(*row)) {
	p := r.parts[part].Load()
	if p == nil {
		return
	}
	for i := range p.rows {
		if banEnd(p.rows[i].state.Load()).live() {
			f(&p.rows[i])
		}
	}
}

// due gives the sentences of a part to which something is to happen by now,
// which the caller sees to, and notes when something will to the others.
func (r *roll) due(part int, now int64) (list []sentence) {
	p := r.parts[part].Load()
	if p == nil || p.due > now {
		return nil
	}
	p.due = forever
	r.each(part, func(row *row) {
		if next := row.next(); next > now {
			p.due = min(p.due, next)
			return
		}
		var s sentence
		row.read(&r.classes, &s)
		list = append(list, s)
	})
	return list
}
