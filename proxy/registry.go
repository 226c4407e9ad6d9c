package proxy

import (
	"net/netip"
	"slices"
	"sync"

	"mailreeve/guard"
)

// registry knows every open connection, and those of each address. An IPv6
// /64 counts as one address, as it does for the guard. The connections are
// themselves the links of its lists: with thousands of them, maps would take
// more memory than their protocols' state.
type registry struct {
	mu    sync.Mutex
	first *conn // of all
	open  int
	from  map[netip.Addr]*conn // the first of each address

	// strangers is how many of each network's connections have not logged in.
	strangers map[netip.Addr]int32
}

// bounds are how many connections there may be; 0 is no bound.
type bounds struct{ all, perAddress, perNetwork int }

// A link is a connection's place in one of the registry's lists.
type link struct{ next, prev *conn }

func newRegistry() *registry {
	return &registry{from: map[netip.Addr]*conn{}, strangers: map[netip.Addr]int32{}}
}

// sourceKey is what connections are gathered under.
func sourceKey(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// add enters a connection unless a bound is reached. The reason is "" if it was
// entered.
func (r *registry) add(c *conn, b bounds) (reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.all > 0 && r.open >= b.all {
		return "limit"
	}
	if reason := r.crowdedLocked(c.origin.Addr, b); reason != "" {
		return reason
	}
	r.open++
	if r.first != nil {
		r.first.all.prev = c
	}
	c.all.next, r.first = r.first, c
	r.enterLocked(c, b.perNetwork > 0)
	return ""
}

// readdress enters a connection under the address that its PROXY header names.
// The reason is "" if that address has not too many.
func (r *registry) readdress(c *conn, a netip.Addr, b bounds) (reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaveLocked(c)
	c.origin.Addr = a
	reason = r.crowdedLocked(a, b)
	r.enterLocked(c, b.perNetwork > 0)
	return reason
}

// loggedIn tells that a connection has: it takes no stranger's place any more.
func (r *registry) loggedIn(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.admitLocked(c)
}

// remove takes out a connection that was entered.
func (r *registry) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open--
	if c.all.next != nil {
		c.all.next.all.prev = c.all.prev
	}
	if c.all.prev != nil {
		c.all.prev.all.next = c.all.next
	} else {
		r.first = c.all.next
	}
	c.all = link{}
	r.leaveLocked(c)
}

// crowdedLocked tells whether an address, or its network, has as many
// connections as it may, and which.
func (r *registry) crowdedLocked(a netip.Addr, b bounds) (reason string) {
	n := 0
	for c := r.from[sourceKey(a)]; c != nil && n < b.perAddress; c = c.kin.next {
		n++
	}
	switch {
	case b.perAddress > 0 && n >= b.perAddress:
		return "address-limit"
	case b.perNetwork > 0 && int(r.strangers[networkKey(a)]) >= b.perNetwork:
		return "network-limit"
	}
	return ""
}

// enterLocked enters a connection under its address, and as a stranger's if
// those of its network are bounded.
func (r *registry) enterLocked(c *conn, bounded bool) {
	if bounded {
		c.stranger = true
		r.strangers[networkKey(c.origin.Addr)]++
	}
	key := sourceKey(c.origin.Addr)
	head := r.from[key]
	if head != nil {
		head.kin.prev = c
	}
	c.kin.next, r.from[key] = head, c
}

// admitLocked has a connection be no stranger's.
func (r *registry) admitLocked(c *conn) {
	if !c.stranger {
		return
	}
	c.stranger = false
	key := networkKey(c.origin.Addr)
	if r.strangers[key]--; r.strangers[key] == 0 {
		delete(r.strangers, key)
	}
}

func (r *registry) leaveLocked(c *conn) {
	r.admitLocked(c)
	if c.kin.next != nil {
		c.kin.next.kin.prev = c.kin.prev
	}
	key := sourceKey(c.origin.Addr)
	switch {
	case c.kin.prev != nil:
		c.kin.prev.kin.next = c.kin.next
	case c.kin.next != nil:
		r.from[key] = c.kin.next
	default:
		delete(r.from, key)
	}
	c.kin = link{}
}

// count is how many are open.
func (r *registry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

// list appends every connection to a slice.
func (r *registry) list(list []*conn) []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	list = slices.Grow(list, r.open)
	for c := r.first; c != nil; c = c.all.next {
		list = append(list, c)
	}
	return list
}

// concerned gives the connections that a change concerns.
func (r *registry) concerned(ch guard.Change) []*conn {
	p := ch.Prefix
	var list []*conn
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.Addr().Is4() && p.Bits() == 32 || p.Addr().Is6() && p.Bits() >= 64 {
		for c := r.from[sourceKey(p.Addr())]; c != nil; c = c.kin.next {
			if ch.Covers(&c.origin) {
				list = append(list, c)
			}
		}
		return list
	}
	for c := r.first; c != nil; c = c.all.next {
		if ch.Covers(&c.origin) {
			list = append(list, c)
		}
	}
	return list
}
