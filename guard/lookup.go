package guard

import (
	"net/netip"
	"sync"
)

// To find what concerns one address or network, only rows of the widths that
// are in use need to be looked up: a search each, where a walk through a
// million takes a tenth of a second. What lies within a network has to be
// walked for, if there is anything as narrow.

// rowWidths counts the rows of each prefix length: of IPv4, and of IPv6.
type rowWidths [2][129]int32

func (ws *rowWidths) of(v4 bool) *[129]int32 {
	if v4 {
		return &ws[0]
	}
	return &ws[1]
}

// count counts a row with that state, whose network does not change.
func (ws *rowWidths) count(e banEnd, by int32) { ws.of(e&endIPv4 != 0)[e.width()] += by }

// narrower tells whether any row is narrower than a network of its family.
func (ws *rowWidths) narrower(p netip.Prefix) bool {
	for _, n := range ws.of(p.Addr().Is4())[p.Bits()+1:] {
		if n > 0 {
			return true
		}
	}
	return false
}

// on appends the sentences on just this network, in whatever scope.
func (r *roll) on(p netip.Prefix, list []sentence) []sentence {
	hi, lo := words(p.Addr())
	network := (&sentenceKey{key: key{prefix: p}}).network()
	hash := r.hash(hi, lo, p.Bits())
	part := r.part(hash).Load()
	if part == nil {
		return list
	}
	for group := part.first(hash); ; group = part.after(group) {
		tags := part.tags[group].Load()
		for hits := tagged(tags, hash); hits != 0; hits &= hits - 1 {
			if i := rowOf(group, hits); part.rows[i].about(hi, lo, network) {
				list = append(list, sentence{})
				part.read(i, &r.classes, &list[len(list)-1])
			}
		}
		if roomy(tags) != 0 {
			return list
		}
	}
}

// about tells whether a row is in use, for just this network.
func (r *row) about(hi, lo uint64, network banEnd) bool {
	e := banEnd(r.state.Load())
	return r.lo.Load() == lo && r.hi.Load() == hi && e&(endNetwork|endGone|endInUse) == network|endInUse
}

// around calls f with every sentence on a network that covers another or that it
// covers, and with those on logins, as walk does.
func (ss *sentences) around(lock *sync.Mutex, p netip.Prefix, f func(*sentence)) {
	if ss.roll.rowWidths.narrower(p) {
		ss.walk(lock, f)
		return
	}
	var list []sentence
	for width, n := range ss.roll.rowWidths.of(p.Addr().Is4())[:p.Bits()+1] {
		if wide, err := p.Addr().Prefix(width); n > 0 && err == nil {
			list = ss.roll.on(wide, list)
		}
	}
	for i := range list {
		f(&list[i])
	}
	ss.walkLogins(lock, f)
}
