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
// Each row has a tag, a byte of its hash, and eight rows a word of tags: a search
// reads the words from where its hash says, up to one with a free row, and only
// those rows whose tag is the hash's. With a million bans the tags are 1.5 MB,
// which mostly stay in the processor's cache where the rows do not; of a hundred
// clients that are not banned three need a row besides, and one that is banned
// needs one, which lies in one line of the cache.
//
// A row has 41 bytes, and at least two thirds of the rows are in use, so a
// sentence costs 50 to 62. The table is in 256 parts, which grow one by one: who
// bans the millionth address waits for four thousand rows to be moved, a fifth of
// a millisecond, and readers never wait. More parts would be more to keep in the
// cache besides the tags.
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
	// rowWidths is the writer's.
	rowWidths rowWidths
}

const (
	rollParts = 256
	partBits  = 8
	// groupRows are the rows that have their tags in one word.
	groupRows = 8
)

// A rollPart is a part of the table. All but its tags and rows is the writer's.
type rollPart struct {
	tags []atomic.Uint64 // a byte for each row, 0 of a free one
	rows []row
	cold []uint64 // what Admit needs not, see coldOf
	used int      // rows that are not free; some may be gone
	live int      // rows that are not gone
	due  int64    // nothing happens to any row before
	// With these the part takes two lines of the cache, and readers one of them.
	_ [32]byte
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

// first gives the group at which the search for a hash begins.
func (p *rollPart) first(hash uint64) int {
	return int(hash & (1<<32 - 1) * uint64(len(p.tags)) >> 32)
}

// after gives the group behind another.
func (p *rollPart) after(group int) int {
	if group++; group == len(p.tags) {
		return 0
	}
	return group
}

// ban gives the state of the ban of just this network in one of the scopes, a
// hard one before a soft one; with none named, in any. It is 0 if there is none.
func (r *roll) ban(hi, lo uint64, width int, now int64, scopes []string) (found banEnd) {
	hash := r.hash(hi, lo, width)
	p := r.part(hash).Load()
	if p == nil {
		return 0
	}
	for group := p.first(hash); ; group = p.after(group) {
		tags := p.tags[group].Load()
		for hits := tagged(tags, hash); hits != 0; hits &= hits - 1 {
			row := &p.rows[rowOf(group, hits)]
			e := banEnd(row.state.Load())
			switch {
			case row.lo.Load() != lo || row.hi.Load() != hi || e.width() != width || e&endEnforced == 0 || e.over(now):
				continue
			case len(scopes) > 0 && !slices.Contains(scopes, r.classes.of(row.class()).scope):
				continue
			case !e.soft():
				return e
			}
			found = e
		}
		if roomy(tags) != 0 {
			return found
		}
	}
}

// find gives the place of a sentence's row in its part, and its hash. The part
// is nil if there is none.
func (r *roll) find(k *sentenceKey) (p *rollPart, i int, hash uint64) {
	hi, lo := words(k.key.prefix.Addr())
	network := k.network()
	hash = r.hash(hi, lo, network.width())
	p = r.part(hash).Load()
	if p == nil {
		return nil, 0, hash
	}
	for group := p.first(hash); ; group = p.after(group) {
		tags := p.tags[group].Load()
		for hits := tagged(tags, hash); hits != 0; hits &= hits - 1 {
			i := rowOf(group, hits)
			if row := &p.rows[i]; row.about(hi, lo, network) && r.classes.of(row.class()).is(k) {
				return p, i, hash
			}
		}
		if roomy(tags) != 0 {
			return nil, 0, hash
		}
	}
}

// put adds or changes a sentence.
func (r *roll) put(s *sentence) {
	class := r.classes.number(s.class())
	p, i, hash := r.find(&s.sentenceKey)
	var was banEnd
	var wasClass uint32
	if p != nil {
		was, wasClass = banEnd(p.rows[i].state.Load()), p.rows[i].class()
		p.fill(i, s, class)
	} else {
		p = r.roomFor(hash)
		i = p.free(hash)
		p.fill(i, s, class)
		p.tag(i, hash)
		r.live.Add(1)
		r.rowWidths.count(s.end(), 1)
	}
	r.recount(&p.rows[i], was, wasClass)
	p.due = min(p.due, p.next(i))
}

// drop takes a sentence out. Its row stays used until the part is made anew.
func (r *roll) drop(k *sentenceKey) {
	p, i, hash := r.find(k)
	if p == nil {
		return
	}
	row := &p.rows[i]
	was, class := banEnd(row.state.Load()), row.class()
	row.state.Store(uint64(was&endNetwork | endInUse | endGone))
	r.recount(row, was, class)
	r.live.Add(-1)
	r.rowWidths.count(was, -1)
	at := r.part(hash)
	switch p.live--; {
	case p.live == 0:
		at.Store(nil)
	case p.sparse():
		at.Store(r.remade(p, 0))
	}
}

// roomFor gives the part for a hash, with room for one more row.
func (r *roll) roomFor(hash uint64) *rollPart {
	at := r.part(hash)
	p := at.Load()
	if p == nil || 16*p.used >= 13*len(p.rows) {
		p = r.remade(p, 1)
		at.Store(p)
	}
	return p
}

// free gives a free row for a hash, for which there must be one. Readers do not
// see it before it has its tag.
func (p *rollPart) free(hash uint64) int {
	p.used++
	p.live++
	for group := p.first(hash); ; group = p.after(group) {
		if free := roomy(p.tags[group].Load()); free != 0 {
			return rowOf(group, free)
		}
	}
}

// tag has a row found from now on.
func (p *rollPart) tag(i int, hash uint64) {
	tags := &p.tags[i/groupRows]
	tags.Store(tags.Load() | tagOf(hash)<<(i%groupRows*8))
}

// newPart makes a part with room for that many rows, of all the memory that
// pieces of such a size come with.
func newPart(rows int) *rollPart {
	size := (max(rows, 1) + groupRows - 1) / groupRows
	room := append([]row(nil), make([]row, size*groupRows)...)
	room = room[:cap(room)/groupRows*groupRows]
	return &rollPart{
		tags: make([]atomic.Uint64, len(room)/groupRows), rows: room,
		cold: make([]uint64, len(room)), due: forever,
	}
}

// reserve makes room for n rows in an empty table, so that it need not grow to
// take them. The parts' rows lie one after the other.
func (r *roll) reserve(n int) {
	if r.live.Load() > 0 || n < rollParts {
		return
	}
	// By chance some parts get more than their share. Of a million none gets an
	// eighth more, which is what there is room for before a part grows.
	for i := range r.parts {
		r.parts[i].Store(newPart(n / rollParts * 7 / 5))
	}
}

// trim gives back what was reserved for more rows than came.
func (r *roll) trim() {
	for i := range r.parts {
		at := &r.parts[i]
		switch p := at.Load(); {
		case p == nil:
		case p.live == 0:
			at.Store(nil)
		case p.sparse():
			at.Store(r.remade(p, 0))
		}
	}
}

// sparse tells that most of a part's room is for nobody.
func (p *rollPart) sparse() bool { return p.live < len(p.rows)/3 && len(p.rows) >= 4*groupRows }

// remade makes a part anew with the rows that are live and room for some more.
func (r *roll) remade(p *rollPart, more int) *rollPart {
	if p == nil {
		return newPart(more)
	}
	next := newPart((p.live + more) * 3 / 2)
	next.due = p.due
	for i := range p.rows {
		old := &p.rows[i]
		if e := banEnd(old.state.Load()); e.live() {
			hash := r.hash(old.hi.Load(), old.lo.Load(), e.width())
			to := next.free(hash)
			next.rows[to].copyFrom(old)
			next.cold[to] = p.cold[i]
			next.tag(to, hash)
		}
	}
	return next
}

// recount counts a row as it is, and no more as it was. What is in force before
// and after is not missed in between.
func (r *roll) recount(row *row, was banEnd, wasClass uint32) {
	is := banEnd(row.state.Load())
	if is&endActive != 0 {
		r.classes.count(row.class(), 1)
	}
	if was&endActive != 0 {
		r.classes.count(wasClass, -1)
	}
	switch enforced := is&endEnforced != 0; {
	case enforced == (was&endEnforced != 0) || r.whole(is):
	case enforced:
		r.nets.add(is)
	default:
		r.nets.remove(was)
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
func (r *roll) each(part int, f func(p *rollPart, i int)) {
	p := r.parts[part].Load()
	if p == nil {
		return
	}
	for i := range p.rows {
		if banEnd(p.rows[i].state.Load()).live() {
			f(p, i)
		}
	}
}

// dueAtOnce is how many sentences are given to be seen to at most: who bans waits
// for that.
const dueAtOnce = 500

// due gives sentences of a part to which something is to happen by now, which the
// caller sees to, and notes when something will to the others.
func (r *roll) due(part int, now int64) (list []sentence) {
	p := r.parts[part].Load()
	if p == nil || p.due > now {
		return nil
	}
	p.due = forever
	r.each(part, func(p *rollPart, i int) {
		if next := p.next(i); next > now || len(list) == dueAtOnce {
			p.due = min(p.due, next)
			return
		}
		var s sentence
		p.read(i, &r.classes, &s)
		list = append(list, s)
	})
	return list
}
