package guard

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// places remembers where logins succeeded. A place is an address; its network
// is the wider place around it. It is a leaf: it calls nothing that locks.
type places struct {
	maxLogins int

	mu     sync.Mutex
	logins map[string]homed
	// crowds are the logins that were first seen in each network.
	crowds map[netip.Prefix][]string
	// addrs and nets are when any login last succeeded from there.
	addrs map[netip.Prefix]int64
	nets  map[netip.Prefix]int64
	dirty map[string]struct{}
}

// A homed login has its places, and the network where it was first seen.
type homed struct {
	home   netip.Prefix
	places []place
}

type place struct {
	Addr netip.Prefix `json:"a"`
	Last int64        `json:"l"`
}

// familiarity is how well a login knows a place.
type familiarity uint8

const (
	stranger familiarity = iota
	familiarNetwork
	familiarAddress
)

func newPlaces(maxLogins int) *places {
	return &places{
		maxLogins: maxLogins,
		logins:    make(map[string]homed),
		crowds:    make(map[netip.Prefix][]string),
		addrs:     make(map[netip.Prefix]int64),
		nets:      make(map[netip.Prefix]int64),
		dirty:     make(map[string]struct{}),
	}
}

// add remembers a success. Beyond maxPlaces the place longest unused goes.
func (p *places) add(login string, addr netip.Prefix, now int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dirty[login] = struct{}{}
	p.seenLocked(addr, now)
	h, known := p.logins[login]
	if !known {
		p.enterLocked(login, []place{{addr, now}})
		return
	}
	list, oldest := h.places, 0
	for i := range list {
		if list[i].Addr == addr {
			list[i].Last = now
			return
		}
		if list[i].Last < list[oldest].Last {
			oldest = i
		}
	}
	if len(list) >= maxPlaces {
		list[oldest] = place{addr, now}
		return
	}
	h.places = append(list, place{addr, now})
	p.logins[login] = h
}

// enterLocked adds a login with its places, of which it has one at least.
func (p *places) enterLocked(login string, list []place) {
	home := network(list[0].Addr.Addr())
	if len(p.logins) >= p.maxLogins {
		p.evictLocked(home)
	}
	p.logins[login] = homed{home, list}
	p.crowds[home] = append(p.crowds[home], login)
}

func (p *places) seenLocked(addr netip.Prefix, at int64) {
	rememberKnown(p.addrs, addr, at, maxKnown)
	rememberKnown(p.nets, network(addr.Addr()), at, maxKnown)
}

// rememberKnown notes a success. If there are too many, one of a few is
// forgotten whose success is longest ago.
func rememberKnown(m map[netip.Prefix]int64, k netip.Prefix, at int64, most int) {
	have, known := m[k]
	if !known && len(m) >= most {
		var victim netip.Prefix
		oldest, n := int64(forever), 0
		for k, at := range m {
			if at < oldest {
				victim, oldest = k, at
			}
			if n++; n == evictSample {
				break
			}
		}
		delete(m, victim)
	}
	m[k] = max(have, at)
}

// evictLocked makes room for a login that is new in a network. Where a server
// takes alice+anything for alice, one account is as many logins as its owner
// likes: so the largest crowd loses one, of the newcomer's network and those of
// a few logins, and of that crowd the one of a few whose last success is longest
// ago.
func (p *places) evictLocked(home netip.Prefix) {
	n := 0
	for _, h := range p.logins {
		if len(p.crowds[h.home]) > len(p.crowds[home]) {
			home = h.home
		}
		if n++; n == evictSample {
			break
		}
	}
	crowd, victim, oldest := p.crowds[home], 0, int64(forever)
	for range evictSample {
		i := rand.IntN(len(crowd))
		if last := p.logins[crowd[i]].last(); last < oldest {
			victim, oldest = i, last
		}
	}
	login, end := crowd[victim], len(crowd)-1
	delete(p.logins, login)
	p.dirty[login] = struct{}{}
	crowd[victim] = crowd[end]
	crowd[end] = ""
	if p.crowds[home] = crowd[:end]; end == 0 {
		delete(p.crowds, home)
	}
}

// last is when the login last succeeded anywhere.
func (h homed) last() (at int64) {
	for _, pl := range h.places {
		at = max(at, pl.Last)
	}
	return at
}

// familiarity tells how well a login knows an address.
func (p *places) familiarity(login string, addr netip.Prefix, now int64, within time.Duration) familiarity {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, net := stranger, network(addr.Addr())
	for _, pl := range p.logins[login].places {
		if now-pl.Last >= within.Milliseconds() {
			continue
		}
		if pl.Addr == addr {
			return familiarAddress
		}
		if net.Contains(pl.Addr.Addr()) {
			f = familiarNetwork
		}
	}
	return f
}

// everFrom tells whether a login ever succeeded from a network.
func (p *places) everFrom(login string, addr netip.Prefix, now int64) bool {
	return p.familiarity(login, addr, now, time.Duration(Forever)) != stranger
}

// succeeded tells whether a login ever succeeded.
func (p *places) succeeded(login string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.logins[login].places) > 0
}

// knownAddress and knownNetwork tell whether any login succeeded there lately.
func (p *places) knownAddress(addr netip.Prefix, now int64) bool {
	return p.lately(p.addrs, addr, now)
}

func (p *places) knownNetwork(net netip.Prefix, now int64) bool {
	return p.lately(p.nets, net, now)
}

func (p *places) lately(m map[netip.Prefix]int64, k netip.Prefix, now int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := m[k]
	return ok && now-at < knownFor.Milliseconds()
}

// of lists a login's places.
func (p *places) of(login string) []Place {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Place
	for _, pl := range p.logins[login].places {
		out = append(out, Place{Addr: pl.Addr, Last: time.UnixMilli(pl.Last)})
	}
	return out
}

// load takes a login's places from the store.
func (p *places) load(login string, list []place, now int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range list {
		list[i].Last = min(list[i].Last, now)
		p.seenLocked(list[i].Addr, list[i].Last)
	}
	if _, known := p.logins[login]; len(list) > 0 && !known { // a damaged store gives it twice
		p.enterLocked(login, list)
	}
}

// sweep forgets the addresses and networks without a success of late.
func (p *places) sweep(now int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range []map[netip.Prefix]int64{p.addrs, p.nets} {
		for k, at := range m {
			if now-at >= knownFor.Milliseconds() {
				delete(m, k)
			}
		}
	}
}

// drain gives the logins that changed since the last call, with their places.
func (p *places) drain(f func(login string, list []place)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for login := range p.dirty {
		f(login, p.logins[login].places)
	}
	clear(p.dirty)
}
