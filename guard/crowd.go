package guard

import (
	"net/netip"
	"sync"
)

// A crowd48 is an IPv6 /48 in a scope. That the bans in it are counted is for
// widen-after, which is off by default: it takes some 40 bytes for each /48.
type crowd48 struct {
	hi    uint64 // the first half of its address
	scope string
}

// watchCrowds begins or ends counting.
func (ss *sentences) watchCrowds(lock *sync.Mutex, wanted bool) {
	switch {
	case !wanted:
		ss.crowds = nil
	case ss.crowds == nil:
		ss.crowds = make(map[crowd48]int32)
		ss.walk(lock, ss.crowd)
	}
}

// crowd counts a sentence in.
func (ss *sentences) crowd(s *sentence) {
	if in, ok := crowdOf(s); ok {
		ss.crowds[in]++
	}
}

// uncrowd counts out what is known under a key.
func (ss *sentences) uncrowd(k sentenceKey) {
	s := ss.get(k)
	if s == nil {
		return
	}
	if in, ok := crowdOf(s); ok {
		if ss.crowds[in]--; ss.crowds[in] <= 0 {
			delete(ss.crowds, in)
		}
	}
}

func crowdOf(s *sentence) (crowd48, bool) {
	if !s.enforced() || s.key.kind != byAddress || s.key.prefix.Addr().Is4() {
		return crowd48{}, false
	}
	return crowdAt(s.key.prefix.Addr(), s.scope), true
}

func crowdAt(a netip.Addr, scope string) crowd48 {
	hi, _ := words(network(a).Addr())
	return crowd48{hi, scope}
}

// crowded gives how many addresses of an IPv6 address's /48 are banned.
func (ss *sentences) crowded(a netip.Addr, scope string) int {
	return int(ss.crowds[crowdAt(a, scope)])
}
