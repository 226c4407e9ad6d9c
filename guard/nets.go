package guard

import (
	"math/bits"
	"sync/atomic"
)

// nets has the widths of networks that are banned now: of others no ban needs to
// be looked for. What counts as one address is looked for anyway.
type nets struct {
	// widths are sets of prefix lengths: of IPv4, and of IPv6 those up to 63,
	// those from 64, and 128.
	widths [4]atomic.Uint64
	counts [4][64]int32
}

// netSet gives which of the sets a width belongs to, and where it is in it.
func netSet(e banEnd) (set, bit int) {
	if e&endIPv4 != 0 {
		return 0, e.width()
	}
	return 1 + e.width()>>6, e.width() & 63
}

// add takes a network's ban in that is in the roll already.
func (ns *nets) add(e banEnd) {
	set, bit := netSet(e)
	ns.counts[set][bit]++
	ns.widths[set].Or(1 << bit)
}

// remove takes one out.
func (ns *nets) remove(e banEnd) {
	set, bit := netSet(e)
	if ns.counts[set][bit]--; ns.counts[set][bit] == 0 {
		ns.widths[set].And(^(uint64(1) << bit))
	}
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
			default:
				width += 64 * (set - 1)
				nlo &^= 1<<(128-width) - 1
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
