package guard

import (
	"math/bits"
	"sync/atomic"
)

// nets says which networks may be banned, so that a look at a client is not a
// look at the roll for each width. It has the widths that bans have now, and a
// blocked Bloom filter of all banned networks, of 16 bits each at least: a
// hundred thousand are 200 KB, which stay in the processor's cache, and of a
// hundred others it lets less than one through.
type nets struct {
	// widths are sets of prefix lengths: of IPv4, and twice of IPv6, those up
	// to 63 and those from 64.
	widths [3]atomic.Uint64
	filter atomic.Pointer[[]atomic.Uint64]
	counts [3][64]int32
	live   int
	added  int // to the filter
}

// netSet gives which of the sets a width belongs to, and where it is in it.
func netSet(w uint64) (set, bit int) {
	width := int(uint8(w))
	if w&rowIPv4 != 0 {
		return 0, width
	}
	return 1 + width>>6, width & 63
}

func (ns *nets) add(r *roll, row *row, w uint64) {
	set, bit := netSet(w)
	ns.counts[set][bit]++
	ns.live++
	filter := ns.filter.Load()
	if filter == nil || ns.added >= 4*len(*filter) {
		ns.fill(r)
	} else {
		ns.note(*filter, r.hash(row.hi.Load(), row.lo.Load(), int(uint8(w))))
	}
	ns.widths[set].Or(1 << bit)
}

func (ns *nets) remove(w uint64) {
	set, bit := netSet(w)
	ns.live--
	if ns.counts[set][bit]--; ns.counts[set][bit] == 0 {
		ns.widths[set].And(^(uint64(1) << bit))
	}
}

// fill makes the filter anew, for twice as many as there are: its bits cannot be
// taken out one by one.
func (ns *nets) fill(r *roll) {
	size := 64
	for 2*size < ns.live {
		size *= 2
	}
	next := make([]atomic.Uint64, size)
	ns.added = 0
	pages := *r.rows.pages.Load()
	for i := range pages {
		p := pages[i].Load()
		if p == nil {
			continue
		}
		for i := range p {
			e, w := banEnd(p[i].state.Load()), p[i].class.Load()
			if e&endEnforced != 0 && !r.whole(w) {
				ns.note(next, r.hash(p[i].hi.Load(), p[i].lo.Load(), int(uint8(w))))
			}
		}
	}
	ns.filter.Store(&next)
}

func (ns *nets) note(filter []atomic.Uint64, hash uint64) {
	word, set := filtered(filter, hash)
	word.Or(set)
	ns.added++
}

// filtered gives the word and the bits of the filter that a hash has.
func filtered(filter []atomic.Uint64, hash uint64) (word *atomic.Uint64, set uint64) {
	return &filter[hash>>24&uint64(len(filter)-1)], 1<<(hash&63) | 1<<(hash>>6&63) | 1<<(hash>>12&63)
}

// ban gives the ban of a network that covers an address, as roll.ban does.
func (ns *nets) ban(r *roll, hi, lo uint64, v4 bool, now int64, scopes []string) (found banEnd) {
	sets := [...]int{1, 2}
	from := sets[:]
	if v4 {
		sets[0] = 0
		from = sets[:1]
	}
	for _, set := range from {
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
			filter := *ns.filter.Load()
			word, need := filtered(filter, r.hash(nhi, nlo, width))
			if word.Load()&need != need {
				continue
			}
			if e := r.ban(nhi, nlo, width, now, scopes); e != 0 {
				if !e.soft() {
					return e
				}
				found = e
			}
		}
	}
	return found
}
