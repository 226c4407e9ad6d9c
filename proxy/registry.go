package proxy

import (
	"net/netip"
	"sync"

	"mailreeve/guard"
)

// registry knows every open connection, and those of each address. An IPv6
// /64 counts as one address, as it does for the guard.
type registry struct {
	mu   sync.Mutex
	all  map[*conn]struct{}
	from map[netip.Addr]map[*conn]struct{}
}

func newRegistry() *registry {
	return &registry{all: map[*conn]struct{}{}, from: map[netip.Addr]map[*conn]struct{}{}}
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

// add enters a connection unless a bound is reached; 0 is no bound. The reason
// is "" if it was entered.
func (r *registry) add(c *conn, limit, perAddress int) (reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if limit > 0 && len(r.all) >= limit {
		return "limit"
	}
	if perAddress > 0 && len(r.from[sourceKey(c.origin.Addr)]) >= perAddress {
		return "address-limit"
	}
	r.all[c] = struct{}{}
	r.enterLocked(c)
	return ""
}

// readdress enters a connection under the address that its PROXY header names.
// The reason is "" if that address has not too many.
func (r *registry) readdress(c *conn, a netip.Addr, perAddress int) (reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaveLocked(c)
	c.origin.Addr = a
	if perAddress > 0 && len(r.from[sourceKey(a)]) >= perAddress {
		reason = "address-limit"
	}
	r.enterLocked(c)
	return reason
}

func (r *registry) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, c)
	r.leaveLocked(c)
}

func (r *registry) enterLocked(c *conn) {
	key := sourceKey(c.origin.Addr)
	if r.from[key] == nil {
		r.from[key] = map[*conn]struct{}{}
	}
	r.from[key][c] = struct{}{}
}

func (r *registry) leaveLocked(c *conn) {
	key := sourceKey(c.origin.Addr)
	delete(r.from[key], c)
	if len(r.from[key]) == 0 {
		delete(r.from, key)
	}
}

// count is how many are open.
func (r *registry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

// list gives every connection.
func (r *registry) list() []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*conn, 0, len(r.all))
	for c := range r.all {
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
	add := func(set map[*conn]struct{}) {
		for c := range set {
			if ch.Covers(&c.origin) {
				list = append(list, c)
			}
		}
	}
	if p.Addr().Is4() && p.Bits() == 32 || p.Addr().Is6() && p.Bits() >= 64 {
		add(r.from[sourceKey(p.Addr())])
		return list
	}
	for _, set := range r.from {
		add(set)
	}
	return list
}
