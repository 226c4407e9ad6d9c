package guard

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/gaissmai/bart"
)

// An index answers Admit: which addresses and networks are banned in which
// scope, and which are allowed. Readers take no lock; writers are serialised
// by the caller. Bans are those of the roll, and the configuration's own.
type index struct {
	roll    *roll
	blocked atomic.Pointer[bart.Lite]         // blocked-ip; nil if there is none
	allow   atomic.Pointer[bart.Table[int64]] // until when, in milliseconds
}

func newIndex(r *roll) *index {
	x := &index{roll: r}
	x.allow.Store(new(bart.Table[int64]))
	return x
}

// lookup gives the ban that covers an address in one of the scopes, or with
// none named in any: a hard one before a soft one. It is 0 if there is none.
// What the configuration blocks is in the scope "all".
func (x *index) lookup(a netip.Addr, now int64, scopes ...string) banEnd {
	a = a.Unmap()
	hi, lo := words(a)
	v4 := a.Is4()
	ownHi, ownLo, width := x.roll.widths.own(hi, lo, v4)
	found := x.roll.ban(ownHi, ownLo, width, now, scopes)
	if found != 0 && !found.soft() {
		return found
	}
	if e := x.roll.nets.cover(x.roll, hi, lo, v4, now, scopes); e != 0 {
		found = e
	}
	if found != 0 && !found.soft() {
		return found
	}
	if b := x.blocked.Load(); b != nil && (len(scopes) == 0 || slices.Contains(scopes, "all")) && b.Contains(a) {
		return blockedForever
	}
	return found
}

// own gives what counts as one address, of an address in words.
func (w *widths) own(hi, lo uint64, v4 bool) (uint64, uint64, int) {
	switch {
	case v4:
		return hi, lo &^ (1<<(32-w.v4) - 1), w.v4
	case w.v6 <= 64:
		return hi &^ (1<<(64-w.v6) - 1), 0, w.v6
	}
	return hi, lo &^ (1<<(128-w.v6) - 1), w.v6
}

// block replaces what the configuration blocks.
func (x *index) block(list []netip.Prefix) {
	if len(list) == 0 {
		x.blocked.Store(nil)
		return
	}
	next := new(bart.Lite)
	for _, p := range list {
		next.Insert(p)
	}
	x.blocked.Store(next)
}

// allowed tells whether an allow entry covers the address.
func (x *index) allowed(a netip.Addr, now int64) bool {
	t := x.allow.Load()
	until, ok := t.Lookup(a)
	if ok && until <= now {
		// The narrowest entry has ended; a wider one may not have.
		ok = false
		for _, until := range t.Supernets(netip.PrefixFrom(a, a.BitLen())) {
			ok = ok || until > now
		}
	}
	return ok
}

// allowedAll tells whether one allow entry covers all of a network.
func (x *index) allowedAll(p netip.Prefix, now int64) bool {
	for _, until := range x.allow.Load().Supernets(p) {
		if until > now {
			return true
		}
	}
	return false
}

// empty tells that nothing is banned.
func (x *index) empty() bool { return x.roll.live.Load() == 0 && x.blocked.Load() == nil }
