package guard

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync/atomic"
)

// A roll has all sentences on addresses and networks. Readers take no lock and
// allocate nothing; writers are serialised by the caller.
//
// A ban costs the 48 bytes of its row and 11 to 14 in a hash table with open
// addressing, whose slots are 32 bits of hash and the number of a row: who is not
// in it is told apart by one cache line, who is in it by two. All sentences about
// one address begin at one slot. The table is in 1,024 parts, which grow one by
// one by the hash that they have in them, so that the longest wait of who bans
// is the copying of some thousand slots, and readers never wait.
type roll struct {
	seed   uint64
	widths widths
	classes
	rows
	parts [rollParts]atomic.Pointer[rollPart]
	live  int
	nets  nets
}

const (
	rollParts = 1024
	partBits  = 10
	// goneRow is the number of the row in a slot whose sentence is gone.
	goneRow = 1<<32 - 1
)

// A rollPart is a part of the table. A slot is 0 while it is free; else the row's
// number plus one is in its lower half.
type rollPart struct {
	slots []atomic.Uint64
	used  int // slots that are not free
	live  int // slots with a row
}

func newRoll(w widths) *roll {
	r := &roll{seed: rand.Uint64(), widths: w, classes: classes{numbers: make(map[class]uint32)}}
	r.rows.pages.Store(new([]atomic.Pointer[page]))
	return r
}

// hash mixes a network. The table is filled by those who are banned, so the
// seed keeps them from choosing their slots.
func (r *roll) hash(hi, lo uint64, width int) uint64 {
	a, b := bits.Mul64(hi^r.seed^0x9e3779b97f4a7c15, lo^bits.RotateLeft64(r.seed, 32)^0xd6e8feb86659fd93^uint64(width)<<56)
	h := a ^ b
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return h ^ h>>32
}

// first gives the slot at which the search for a hash begins. It goes by the
// half of the hash that is in the slots, so that they can be copied without a
// look at the rows.
func (p *rollPart) first(hash uint64) int {
	return int(hash & (1<<32 - 1) * uint64(len(p.slots)) >> 32)
}

// ban gives the state of the ban of just this network in one of the scopes, a
// hard one before a soft one; with none named, in any. It is 0 if there is none.
func (r *roll) ban(hi, lo uint64, width int, now int64, scopes []string) (found banEnd) {
	hash := r.hash(hi, lo, width)
	p := r.parts[hash>>(64-partBits)].Load()
	if p == nil {
		return 0
	}
	for i := p.first(hash); ; {
		slot := p.slots[i].Load()
		if slot == 0 {
			return found
		}
		if slot>>32 == hash&(1<<32-1) && uint32(slot) != goneRow {
			if e := r.banIn(uint32(slot)-1, hi, lo, width, scopes); e != 0 && !e.over(now) {
				if !e.soft() {
					return e
				}
				found = e
			}
		}
		if i++; i == len(p.slots) {
			i = 0
		}
	}
}

// banIn gives the state of a row if it is a ban that is asked for.
func (r *roll) banIn(n uint32, hi, lo uint64, width int, scopes []string) banEnd {
	row := r.rows.at(n)
	if row == nil {
		return 0
	}
	for {
		e := banEnd(row.state.Load())
		if e&endEnforced == 0 || row.lo.Load() != lo || row.hi.Load() != hi {
			return 0
		}
		w := row.class.Load()
		if banEnd(row.state.Load()) != e {
			continue // It changed under our eyes.
		}
		if int(uint8(w)) != width || len(scopes) > 0 && !slices.Contains(scopes, r.classes.of(uint32(w>>32)).scope) {
			return 0
		}
		return e
	}
}

// find gives the row of a sentence.
func (r *roll) find(k *sentenceKey) (n uint32, found *row) {
	hi, lo := words(k.key.prefix.Addr())
	width := k.key.prefix.Bits()
	hash := r.hash(hi, lo, width)
	p := r.parts[hash>>(64-partBits)].Load()
	if p == nil {
		return 0, nil
	}
	for i := p.first(hash); ; {
		slot := p.slots[i].Load()
		if slot == 0 {
			return 0, nil
		}
		if slot>>32 == hash&(1<<32-1) && uint32(slot) != goneRow {
			n := uint32(slot) - 1
			row := r.rows.at(n)
			w := row.class.Load()
			if row.lo.Load() == lo && row.hi.Load() == hi && int(uint8(w)) == width &&
				(w&rowIPv4 != 0) == k.key.prefix.Addr().Is4() && r.classes.of(uint32(w>>32)).is(k) {
				return n, row
			}
		}
		if i++; i == len(p.slots) {
			i = 0
		}
	}
}

// put adds or changes a sentence.
func (r *roll) put(s *sentence) {
	class := r.classes.number(s.class())
	n, row := r.find(&s.sentenceKey)
	var was banEnd
	var wasClass uint64
	if row != nil {
		was, wasClass = banEnd(row.state.Load()), row.class.Load()
		row.fillRest(s, class)
	} else {
		n, row = r.rows.add()
		row.fill(s, class)
		r.link(n, s)
		r.live++
	}
	r.recount(row, was, wasClass)
	info := &r.rows.info[n/pageRows]
	info.due = min(info.due, row.next())
}

// drop takes a sentence out.
func (r *roll) drop(k *sentenceKey) {
	n, row := r.find(k)
	if row == nil {
		return
	}
	was, wasClass := banEnd(row.state.Load()), row.class.Load()
	r.unlink(n, k)
	r.rows.remove(n)
	r.live--
	r.recount(row, was, wasClass)
}

// recount counts a row as it is, and no more as it was. What is in force before
// and after is not missed in between.
func (r *roll) recount(row *row, was banEnd, wasClass uint64) {
	is, class := banEnd(row.state.Load()), row.class.Load()
	if is&endActive != 0 {
		r.classes.count(uint32(class>>32), 1)
	}
	if was&endActive != 0 {
		r.classes.count(uint32(wasClass>>32), -1)
	}
	switch enforced := is&endEnforced != 0; {
	case enforced == (was&endEnforced != 0):
	case enforced && !r.whole(class):
		r.nets.add(r, row, class)
	case !enforced && !r.whole(wasClass):
		r.nets.remove(wasClass)
	}
}

// whole tells whether a row of that class word is about what counts as one
// address.
func (r *roll) whole(w uint64) bool {
	if w&rowIPv4 != 0 {
		return int(uint8(w)) == r.widths.v4
	}
	return int(uint8(w)) == r.widths.v6
}

// link enters a row into the table.
func (r *roll) link(n uint32, s *sentence) {
	hi, lo := words(s.key.prefix.Addr())
	hash := r.hash(hi, lo, s.key.prefix.Bits())
	at := &r.parts[hash>>(64-partBits)]
	p := at.Load()
	if p == nil || p.used >= len(p.slots)/4*3 {
		p = p.grown()
		at.Store(p)
	}
	p.add(hash<<32 | uint64(n+1))
}

// add takes a slot's word in, for which there must be room.
func (p *rollPart) add(word uint64) {
	i := p.first(word >> 32)
	for p.slots[i].Load() != 0 {
		if i++; i == len(p.slots) {
			i = 0
		}
	}
	p.slots[i].Store(word)
	p.used++
	p.live++
}

// grown gives a part with room for two thirds more than live. It takes all the
// memory that such a piece comes with.
func (p *rollPart) grown() *rollPart {
	live := 0
	if p != nil {
		live = p.live
	}
	next := &rollPart{slots: append([]atomic.Uint64(nil), make([]atomic.Uint64, 8+live*5/3)...)}
	next.slots = next.slots[:cap(next.slots)]
	if p != nil {
		for i := range p.slots {
			if word := p.slots[i].Load(); word != 0 && uint32(word) != goneRow {
				next.add(word)
			}
		}
	}
	return next
}

// unlink takes a row out of the table. Its slot stays used until the part is
// made anew.
func (r *roll) unlink(n uint32, k *sentenceKey) {
	hi, lo := words(k.key.prefix.Addr())
	hash := r.hash(hi, lo, k.key.prefix.Bits())
	at := &r.parts[hash>>(64-partBits)]
	p := at.Load()
	word := hash<<32 | uint64(n+1)
	i := p.first(hash)
	for p.slots[i].Load() != word {
		if i++; i == len(p.slots) {
			i = 0
		}
	}
	p.slots[i].Store(word | goneRow)
	switch p.live--; {
	case p.live == 0:
		at.Store(nil)
	case p.live < len(p.slots)/4 && len(p.slots) > 16:
		at.Store(p.grown())
	}
}

// none tells that there never was a sentence.
func (r *roll) none() bool { return len(*r.rows.pages.Load()) == 0 }
