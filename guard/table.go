package guard

import (
	"math/bits"
	"sync/atomic"
)

// An addrTable maps addresses to when their ban ends. Readers take no lock and
// allocate nothing; there may be one writer at a time. It is a hash table with
// open addressing: 24 bytes a slot, at most three quarters of the slots in
// use, so 34 to 68 bytes an address. A slot's key never changes once it is
// set, so a reader that saw the slot in use may compare the key without
// further ado. Removed addresses keep their slot until the table is rebuilt.
type addrTable struct {
	now  atomic.Pointer[slots]
	used int // slots with a key
	live int // slots with a ban
	// expect is for how many the first slots are made.
	expect int
}

// Slots are the table as a reader sees it. Before them he looks at the filter, a
// blocked Bloom filter of two bytes a slot: with a million bans it is a few
// megabytes, which stay in the processor's cache where the slots do not, and of
// a hundred addresses that are not in the table it lets through less than two.
type slots struct {
	mask       uint64
	slot       []addrSlot
	filterMask uint64
	filter     []atomic.Uint64
}

func newSlots(size int) *slots {
	return &slots{
		mask: uint64(size - 1), slot: make([]addrSlot, size),
		filterMask: uint64(size/4 - 1), filter: make([]atomic.Uint64, size/4),
	}
}

// filtered gives the word and the two bits of the filter that a hash has. The
// slots are found by the hash's other end.
func (s *slots) filtered(hash uint64) (word *atomic.Uint64, bits uint64) {
	return &s.filter[hash>>32&s.filterMask], 1<<(hash>>58) | 1<<(hash>>52&63)
}

// An addrSlot's meta is 0 while the slot is free, removedMeta after a removal,
// else the end of the ban in milliseconds and whether it is soft.
type addrSlot struct {
	hi, lo, meta atomic.Uint64
}

const (
	minSlots    = 64
	removedMeta = 1 << 62
	softMeta    = 1 << 61
	timeMeta    = softMeta - 1 // the bits of the time; all set: forever
)

// banEnd packs a ban's end into a slot or into the network table.
type banEnd uint64

func newBanEnd(until int64, soft bool) banEnd {
	e := banEnd(min(uint64(max(until, 1)), timeMeta))
	if soft {
		e |= softMeta
	}
	return e
}

func (e banEnd) soft() bool          { return e&softMeta != 0 }
func (e banEnd) over(now int64) bool { return uint64(e)&timeMeta <= uint64(now) }

// hashAddr mixes an address. The table is filled by those who are banned, so
// seed keeps them from choosing their slots.
func hashAddr(hi, lo, seed uint64) uint64 {
	a, b := bits.Mul64(hi^seed^0x9e3779b97f4a7c15, lo^bits.RotateLeft64(seed, 32)^0xd6e8feb86659fd93)
	h := a ^ b
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return h ^ h>>32
}

// get gives the ban of an address, 0 if there is none.
func (t *addrTable) get(hi, lo, seed uint64) banEnd {
	s := t.now.Load()
	if s == nil {
		return 0
	}
	hash := hashAddr(hi, lo, seed)
	if word, bits := s.filtered(hash); word.Load()&bits != bits {
		return 0
	}
	for i := hash; ; i++ {
		slot := &s.slot[i&s.mask]
		meta := slot.meta.Load()
		if meta == 0 {
			return 0
		}
		if slot.lo.Load() == lo && slot.hi.Load() == hi {
			if meta == removedMeta {
				return 0
			}
			return banEnd(meta)
		}
	}
}

// set adds or changes the ban of an address.
func (t *addrTable) set(hi, lo, seed uint64, end banEnd) {
	s := t.now.Load()
	if s == nil || t.used >= len(s.slot)/4*3 {
		s = t.rebuild(seed)
	}
	slot, found := s.find(hi, lo, seed)
	if !found {
		s.fill(slot, hi, lo, seed)
		t.used++
	}
	if old := slot.meta.Load(); !found || old == removedMeta {
		t.live++
	}
	slot.meta.Store(uint64(end))
}

// remove takes an address out.
func (t *addrTable) remove(hi, lo, seed uint64) {
	s := t.now.Load()
	if s == nil {
		return
	}
	if slot, found := s.find(hi, lo, seed); found && slot.meta.Load() != removedMeta {
		slot.meta.Store(removedMeta)
		t.live--
		if len(s.slot) > minSlots && t.live < len(s.slot)/8 {
			t.rebuild(seed)
		}
	}
}

// fill gives a free slot its key. It is in use once it has its meta.
func (s *slots) fill(slot *addrSlot, hi, lo, seed uint64) {
	word, bits := s.filtered(hashAddr(hi, lo, seed))
	word.Or(bits)
	slot.hi.Store(hi)
	slot.lo.Store(lo)
}

// find gives the slot of an address, or the free one it would have.
func (s *slots) find(hi, lo, seed uint64) (slot *addrSlot, found bool) {
	for i := hashAddr(hi, lo, seed); ; i++ {
		slot := &s.slot[i&s.mask]
		if slot.meta.Load() == 0 {
			return slot, false
		}
		if slot.lo.Load() == lo && slot.hi.Load() == hi {
			return slot, true
		}
	}
}

// rebuild makes a table with room for what lives, and half as much again.
func (t *addrTable) rebuild(seed uint64) *slots {
	size := minSlots
	room := max(t.live*3/2, t.expect)
	t.expect = 0
	for room >= size/4*3 {
		size *= 2
	}
	next := newSlots(size)
	if old := t.now.Load(); old != nil {
		for i := range old.slot {
			o := &old.slot[i]
			meta := o.meta.Load()
			if meta == 0 || meta == removedMeta {
				continue
			}
			slot, _ := next.find(o.hi.Load(), o.lo.Load(), seed)
			next.fill(slot, o.hi.Load(), o.lo.Load(), seed)
			slot.meta.Store(meta)
		}
	}
	t.used = t.live
	t.now.Store(next)
	return next
}
