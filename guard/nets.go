package guard

import (
	"math/bits"
	"sync/atomic"
)

// nets says what may be banned, so that a look at a client is mostly not a look
// at the roll. It has the widths of networks that are banned now, and a blocked
// Bloom filter of all that is banned, of 11 bits each at least.
type nets struct {
	// widths are sets of prefix lengths: of IPv4, and twice of IPv6, those up
	// to 63 and those from 64.
	widths [3]atomic.Uint64
	filter atomic.Pointer[[]atomic.Uint64]
	counts [3][64]int32
	live   int
	added  int // to the filter
}

// filterLoad is how many bans have the same word of the filter.
const filterLoad = 6

// netSet gives which of the sets a width belongs to, and where it is in it.
func netSet(e banEnd) (set, bit int) {
	if e&endIPv4 != 0 {
		return 0, e.width()
	}
	return 1 + e.width()>>6, e.width() & 63
}

// add takes a ban in that is in the roll already.
func (ns *nets) add(r *roll, e banEnd, hash uint64) {
	ns.live++
	if filter := ns.filter.Load(); filter == nil || ns.added >= filterLoad*len(*filter) {
		ns.fill(r)
	} else {
		ns.note(*filter, hash)
	}
	if !r.whole(e) {
		set, bit := netSet(e)
		ns.counts[set][bit]++
		ns.widths[set].Or(1 << bit)
	}
}

func (ns *nets) remove(r *roll, e banEnd) {
	ns.live--
	if r.whole(e) {
		return
	}
	set, bit := netSet(e)
	if ns.counts[set][bit]--; ns.counts[set][bit] == 0 {
		ns.widths[set].And(^(uint64(1) << bit))
	}
}

// fill makes the filter anew, for up to twice as many as there are: its bits
// cannot be taken out one by one.
func (ns *nets) fill(r *roll) {
	size := 8
	for filterLoad*size <= ns.live {
		size *= 2
	}
	next := make([]atomic.Uint64, size)
	ns.added = 0
	for part := range r.parts {
		r.each(part, func(row *row) {
			if e := banEnd(row.state.Load()); e&endEnforced != 0 {
				ns.note(next, r.hash(row.hi.Load(), row.lo.Load(), e.width()))
			}
		})
	}
	ns.filter.Store(&next)
}

func (ns *nets) note(filter []atomic.Uint64, hash uint64) {
	word, set := filtered(filter, hash)
	word.Or(set)
	ns.added++
}

// filtered gives the word and the bits of the filter that a hash has. The roll
// goes by other bits of it.
func filtered(filter []atomic.Uint64, hash uint64) (word *atomic.Uint64, set uint64) {
	return &filter[hash>>22&uint64(len(filter)-1)], 1<<(hash&63) | 1<<(hash>>6&63) | 1<<(hash>>12&63)
}

// ban gives the ban of just this network, as roll.ban does.
func (ns *nets) ban(r *roll, hi, lo uint64, width int, now int64, scopes []string) banEnd {
	filter := ns.filter.Load()
	if filter == nil {
		return 0
	}
	hash := r.hash(hi, lo, width)
	if word, set := filtered(*filter, hash); word.Load()&set != set {
		return 0
	}
	return r.ban(hash, hi, lo, width, now, scopes)
}

// cover gives the ban of a network that covers an address, as roll.ban does.
func (ns *nets) cover(r *roll, hi, lo uint64, v4 bool, now int64, scopes []string) (found banEnd) {
	from, to := 1, len(ns.widths)
	if v4 {
		from, to = 0, 1
	}
	for set := from; set < to; set++ {
		for left := ns.widths[set].Load(); left != 0; left &= left - 1 {
			width := bits.TrailingZeros64(left)
			nhi, nlo := hi, lo
			switch set {
			case 0:
				nlo &^= 1<<(32-width) - 1
			case 1:
				nhi, nlo = hi&^(1<<(64-width)-1), 0
			case 2:
				width += 64
				nlo &^= 1<<(128-width) - 1
			}
			if e := ns.ban(r, nhi, nlo, width, now, scopes); e != 0 {
				if !e.soft() {
					return e
				}
				found = e
			}
		}
	}
	return found
}
