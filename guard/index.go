package guard

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/gaissmai/bart"
)

// An index answers Admit: which addresses and networks are banned in which
// scope, and which are allowed. Readers take no lock; writers are serialised
// by the caller.
type index struct {
	seed   uint64
	expect int // how many bans the first scope will have
	widths atomic.Pointer[widths]
	scopes atomic.Pointer[[]*scopeIndex]     // few, so that they are gone through
	allow  atomic.Pointer[bart.Table[int64]] // until when, in milliseconds
}

// A scopeIndex holds the bans of one scope. Networks of the usual widths are
// in the same table as addresses, with their width in the unused half of the
// key: a trie costs ten times as much for networks that are far apart.
type scopeIndex struct {
	name  string
	table addrTable
	// usual counts the networks of each usual width in the table.
	usual [len(usualWidths)]atomic.Int32
	nets  atomic.Pointer[bart.Table[banEnd]] // of all other widths
}

// usualWidths are the widths that bans of networks mostly have; the first is
// IPv4's.
var usualWidths = [...]int{24, 48, 56}

func newIndex(w widths) *index {
	x := &index{seed: rand.Uint64()}
	x.widths.Store(&w)
	x.scopes.Store(&[]*scopeIndex{})
	x.allow.Store(new(bart.Table[int64]))
	return x
}

// netWords gives the key of a network of the i-th usual width.
func netWords(a netip.Addr, i int) (hi, lo uint64) {
	b := a.As16()
	if i == 0 {
		return 1, binary.BigEndian.Uint64(b[8:]) &^ 0xff
	}
	return binary.BigEndian.Uint64(b[:8]) &^ (1<<(64-usualWidths[i]) - 1), uint64(usualWidths[i])
}

// usualWidth gives the place of a network's width among the usual ones. Where
// IPv6 addresses count one by one the key has no unused half.
func (w *widths) usualWidth(p netip.Prefix) (int, bool) {
	if p.Addr().Is6() && w.v6 > 64 {
		return 0, false
	}
	for i, bits := range usualWidths {
		if p.Bits() == bits && p.Addr().Is4() == (i == 0) {
			return i, true
		}
	}
	return 0, false
}

// words gives an address, at its width, as two words. IPv4 is v4-mapped.
func (w *widths) words(a netip.Addr) (hi, lo uint64) {
	b := a.As16()
	hi, lo = binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	bits := 96 + w.v4
	if !a.Is4() && !a.Is4In6() {
		bits = w.v6
	}
	if bits <= 64 {
		return hi &^ (1<<(64-bits) - 1), 0
	}
	return hi, lo &^ (1<<(128-bits) - 1)
}

// lookup gives the ban that covers an address in one of the scopes: a hard one
// before a soft one. It is 0 if there is none.
func (x *index) lookup(a netip.Addr, now int64, scopes ...string) banEnd {
	all := *x.scopes.Load()
	if len(all) == 0 {
		return 0
	}
	a = a.Unmap()
	hi, lo := x.widths.Load().words(a)
	var found banEnd
	for _, s := range all {
		if !slices.Contains(scopes, s.name) {
			continue
		}
		if e := s.table.get(hi, lo, x.seed); e != 0 && !e.over(now) {
			if !e.soft() {
				return e
			}
			found = e
		}
		if e := s.lookupNet(a, now, x.seed); e != 0 {
			return e
		}
	}
	return found
}

// lookupNet gives the ban of a network that covers an address.
func (s *scopeIndex) lookupNet(a netip.Addr, now int64, seed uint64) banEnd {
	from, to := 1, len(usualWidths)
	if a.Is4() {
		from, to = 0, 1
	}
	for i := from; i < to; i++ {
		if s.usual[i].Load() == 0 {
			continue
		}
		hi, lo := netWords(a, i)
		if e := s.table.get(hi, lo, seed); e != 0 && !e.over(now) {
			return e
		}
	}
	if t := s.nets.Load(); t != nil {
		return lookupTrie(t, a, now)
	}
	return 0
}

func lookupTrie(t *bart.Table[banEnd], a netip.Addr, now int64) banEnd {
	e, ok := t.Lookup(a)
	if !ok {
		return 0
	}
	if !e.over(now) {
		return e
	}
	// The narrowest ban has ended; a wider one may not have.
	for _, e := range t.Supernets(netip.PrefixFrom(a, a.BitLen())) {
		if !e.over(now) {
			return e
		}
	}
	return 0
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
func (x *index) empty() bool { return len(*x.scopes.Load()) == 0 }

func (x *index) scope(name string) *scopeIndex {
	all := *x.scopes.Load()
	for _, s := range all {
		if s.name == name {
			return s
		}
	}
	s := &scopeIndex{name: name}
	s.table.expect, x.expect = x.expect, 0
	next := append(slices.Clone(all), s)
	x.scopes.Store(&next)
	return s
}

// whole tells whether a network is just what counts as one address.
func (w widths) whole(p netip.Prefix) bool { return p == w.address(p.Addr()) }

// set adds or changes a ban.
func (x *index) set(p netip.Prefix, scope string, end banEnd) {
	s := x.scope(scope)
	w := x.widths.Load()
	if w.whole(p) {
		hi, lo := w.words(p.Addr())
		s.table.set(hi, lo, x.seed, end)
		return
	}
	if i, ok := w.usualWidth(p); ok {
		hi, lo := netWords(p.Addr(), i)
		if s.table.get(hi, lo, x.seed) == 0 {
			s.usual[i].Add(1)
		}
		s.table.set(hi, lo, x.seed, end)
		return
	}
	t := s.nets.Load()
	if t == nil {
		t = new(bart.Table[banEnd])
	}
	s.nets.Store(t.InsertPersist(p, end))
}

// remove takes a ban out.
func (x *index) remove(p netip.Prefix, scope string) {
	s := x.scope(scope)
	w := x.widths.Load()
	if w.whole(p) {
		hi, lo := w.words(p.Addr())
		s.table.remove(hi, lo, x.seed)
		return
	}
	if i, ok := w.usualWidth(p); ok {
		hi, lo := netWords(p.Addr(), i)
		if s.table.get(hi, lo, x.seed) != 0 {
			s.table.remove(hi, lo, x.seed)
			s.usual[i].Add(-1)
		}
		return
	}
	t := s.nets.Load()
	if t == nil {
		return
	}
	if t = t.DeletePersist(p); t.Size() == 0 {
		t = nil
	}
	s.nets.Store(t)
}
