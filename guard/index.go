package guard

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"

	"github.com/gaissmai/bart"
)

// An index answers Admit: which addresses and networks are banned in which
// scope, and which are allowed. Readers take no lock; writers are serialised
// by the caller.
type index struct {
	seed   uint64
	widths atomic.Pointer[widths]
	scopes atomic.Pointer[map[string]*scopeIndex]
	allow  atomic.Pointer[bart.Table[int64]] // until when, in milliseconds
}

// A scopeIndex holds the bans of one scope.
type scopeIndex struct {
	addrs addrTable
	nets  atomic.Pointer[bart.Table[banEnd]]
}

func newIndex(w widths) *index {
	x := &index{seed: rand.Uint64()}
	x.widths.Store(&w)
	x.scopes.Store(&map[string]*scopeIndex{})
	x.allow.Store(new(bart.Table[int64]))
	return x
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
	m := *x.scopes.Load()
	if len(m) == 0 {
		return 0
	}
	hi, lo := x.widths.Load().words(a)
	var found banEnd
	for _, name := range scopes {
		s := m[name]
		if s == nil {
			continue
		}
		if e := s.addrs.get(hi, lo, x.seed); e != 0 && !e.over(now) {
			if !e.soft() {
				return e
			}
			found = e
		}
		if t := s.nets.Load(); t != nil {
			if e := lookupNet(t, a.Unmap(), now); e != 0 {
				return e
			}
		}
	}
	return found
}

func lookupNet(t *bart.Table[banEnd], a netip.Addr, now int64) banEnd {
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

// empty tells that nothing is banned.
func (x *index) empty() bool { return len(*x.scopes.Load()) == 0 }

func (x *index) scope(name string) *scopeIndex {
	m := *x.scopes.Load()
	if s := m[name]; s != nil {
		return s
	}
	next := maps.Clone(m)
	s := &scopeIndex{}
	next[name] = s
	x.scopes.Store(&next)
	return s
}

// whole tells whether a network is just what counts as one address.
func (w widths) whole(p netip.Prefix) bool { return p == w.address(p.Addr()) }

// set adds or changes a ban.
func (x *index) set(p netip.Prefix, scope string, end banEnd) {
	s := x.scope(scope)
	if w := x.widths.Load(); w.whole(p) {
		hi, lo := w.words(p.Addr())
		s.addrs.set(hi, lo, x.seed, end)
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
	s := (*x.scopes.Load())[scope]
	if s == nil {
		return
	}
	if w := x.widths.Load(); w.whole(p) {
		hi, lo := w.words(p.Addr())
		s.addrs.remove(hi, lo, x.seed)
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
