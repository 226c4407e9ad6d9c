package proxy

import (
	"net/netip"
	"sync"
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
	key := sourceKey(c.origin.Addr)
	r.mu.Lock()
	defer r.mu.Unlock()
	if limit > 0 && len(r.all) >= limit {
		return "limit"
	}
	if perAddress > 0 && len(r.from[key]) >= perAddress {
		return "address-limit"
	}
	r.all[c] = struct{}{}
	if r.from[key] == nil {
		r.from[key] = map[*conn]struct{}{}
	}
	r.from[key][c] = struct{}{}
	return ""
}

func (r *registry) remove(c *conn) {
	key := sourceKey(c.origin.Addr)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, c)
	if set := r.from[key]; set != nil {
		delete(set, c)
		if len(set) == 0 {
			delete(r.from, key)
		}
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

// within gives the connections from a network.
func (r *registry) within(p netip.Prefix) []*conn {
	var list []*conn
	r.mu.Lock()
	defer r.mu.Unlock()
	add := func(set map[*conn]struct{}) {
		for c := range set {
			if p.Contains(c.origin.Addr) {
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
