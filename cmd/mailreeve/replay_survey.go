package main

import (
	"net/netip"
	"slices"
	"time"

	"mailreeve/guard"
)

// falseBanWithin is how near a success must be to a ban for the ban to look
// like a mistake; the live metric has the same hour.
const falseBanWithin = time.Hour

// A survey is what must be known of a log before it is played: who logged in
// when, and what really happened.
type survey struct {
	width func(netip.Addr) netip.Prefix

	from, to time.Time
	events   int
	reached  int // credentials that went to a server
	refused  int // and those that did not

	// successes are when a login succeeded at an address, and pairs the same
	// by login, in order; what follows within a minute is left out.
	successes map[netip.Prefix][]time.Time
	pairs     map[loginAt][]time.Time
	// familiar are the places that the log knows as familiar before it has seen
	// a success there.
	familiar []guard.News
	known    map[loginAt]bool
	bans     []guard.Ban
}

type loginAt struct {
	login string
	at    netip.Prefix
}

func newSurvey(ipv4Width, ipv6Width int) *survey {
	return &survey{
		width: func(a netip.Addr) netip.Prefix {
			bits := ipv6Width
			if a = a.Unmap(); a.Is4() {
				bits = ipv4Width
			}
			p, _ := a.Prefix(bits) // an invalid address has an invalid prefix
			return p
		},
		successes: map[netip.Prefix][]time.Time{},
		pairs:     map[loginAt][]time.Time{},
		known:     map[loginAt]bool{},
	}
}

// site is the wider place around an address, as the guard has it.
func site(a netip.Addr) netip.Prefix {
	bits := 48
	if a = a.Unmap(); a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits)
	return p
}

// take notes an event.
func (s *survey) take(n *guard.News) error {
	if n.Elsewhere {
		return nil // the log of the node that decided it has it
	}
	if s.events++; s.events == 1 {
		s.from = n.Time
	}
	s.to = n.Time
	switch {
	case n.Ban != nil:
		s.takeBan(n)
	case n.Kind == guard.AuthRefused:
		s.refused++
	case isAttempt(n.Kind):
		s.reached++
	}
	pair := loginAt{n.Login, site(n.Addr)}
	if n.Kind == guard.AuthSuccess {
		at := s.width(n.Addr)
		s.successes[at] = later(s.successes[at], n.Time)
		here := loginAt{n.Login, at}
		s.pairs[here] = later(s.pairs[here], n.Time)
		s.known[pair] = true
	} else if n.Familiar && !s.known[pair] {
		s.known[pair] = true
		s.familiar = append(s.familiar, *n)
	}
	return nil
}

func later(times []time.Time, t time.Time) []time.Time {
	if n := len(times); n > 0 && t.Sub(times[n-1]) < time.Minute {
		return times
	}
	return append(times, t)
}

// takeBan notes a ban's beginning, or that it ended before its time.
func (s *survey) takeBan(n *guard.News) {
	if string(n.Kind) == n.Ban.Kind {
		s.bans = append(s.bans, *n.Ban)
		return
	}
	for i := range slices.Backward(s.bans) {
		b := &s.bans[i]
		if b.Target == n.Ban.Target && b.Kind == n.Ban.Kind && b.Scope == n.Ban.Scope {
			b.Until = n.Time
			return
		}
	}
}

// near gives a time at which one of the list is within an hour of t.
func near(times []time.Time, t time.Time) (time.Time, bool) {
	i, _ := slices.BinarySearchFunc(times, t.Add(-falseBanWithin), time.Time.Compare)
	if i < len(times) && times[i].Before(t.Add(falseBanWithin)) {
		return times[i], true
	}
	return time.Time{}, false
}

// mistaken gives the success that makes a ban look like a mistake: at its
// address, within an hour of its beginning or its end.
func (s *survey) mistaken(b *guard.Ban) (time.Time, bool) {
	if b.Kind != "ban" || b.Rule == "manual" || !b.Prefix.IsValid() {
		return time.Time{}, false
	}
	times := s.successes[b.Prefix]
	if t, ok := near(times, b.Since); ok || b.Forever() {
		return t, ok
	}
	return near(times, b.Until)
}

// mayBeRight tells whether a credential that no server saw may have been right:
// the login succeeded from that address within the hour.
func (s *survey) mayBeRight(n *guard.News) bool {
	_, ok := near(s.pairs[loginAt{n.Login, s.width(n.Addr)}], n.Time)
	return ok
}
