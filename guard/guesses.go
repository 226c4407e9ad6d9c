package guard

import (
	"net/netip"
	"sync"
	"time"
)

// guesses remembers guesses: those in flight, those that failed of late, and
// those that succeeded.
//
// It also tells apart what a window cannot. That knows 16 bits of a secret, so
// of 65,536 pairs of different passwords for a login one pair would count as
// one, and one guess more than the limit would reach the server. Of two that
// are both remembered here the later one gets another value. What came through
// another node, before a restart, or too long ago is not remembered.
type guesses struct {
	mu sync.Mutex
	m  map[guessHash]*guessState
	// byValue are the same guesses by what they are in the windows of a login.
	byValue map[uint32]*guessState
	most    struct{ m, byValue int } // see slim
}

type guessState struct {
	seen int64
	// value is the guess's in windows, and place is where it is in byValue.
	value, place uint32
	// failed is set after a failure, with the address that it was scored at.
	failed bool
	at     netip.Prefix
	// sent is when it last went to the server.
	sent int64
	// flight is set while it is with the server; closed when it is settled.
	flight chan struct{}
	// good guesses need not wait for each other.
	good bool
}

func newGuesses() *guesses {
	return &guesses{m: make(map[guessHash]*guessState), byValue: make(map[uint32]*guessState)}
}

// guessStanding is what begin says about a guess.
type guessStanding uint8

const (
	guessNew      guessStanding = iota // it is in flight now
	guessInFlight                      // wait for the one that is
	guessRepeated                      // it failed a moment ago
	guessAgain                         // it failed before: it goes, and scores nothing more
)

// begin marks a guess as in flight, unless it need not go at all. It sets the
// guess's value to what the guess has in windows.
func (gs *guesses) begin(g *guess, addr, net netip.Prefix, now int64, answer time.Duration) (guessStanding, <-chan struct{}) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	s := gs.m[g.hash]
	if s == nil {
		s = gs.addLocked(g, net, now)
	}
	s.seen, g.value = now, s.value
	switch {
	case s.failed && now-s.sent < answer.Milliseconds():
		return guessRepeated, nil
	case s.flight != nil && !s.good:
		return guessInFlight, s.flight
	case s.flight == nil:
		s.flight = make(chan struct{})
	}
	if s.failed && s.at != addr && now-s.sent < guessMemory.Milliseconds() {
		return guessAgain, nil
	}
	return guessNew, nil
}

// addLocked remembers a guess that is not known. If one that is has its value, it
// gets another; only the identities' bits of that change, so no more of the
// secret is stored.
func (gs *guesses) addLocked(g *guess, net netip.Prefix, now int64) *guessState {
	if len(gs.m) >= maxGuesses {
		gs.evictLocked(now)
	}
	own := *g
	for range maxAlike {
		if gs.byValue[own.at(net)] == nil {
			break
		}
		own.value = max(own.value+1<<16, 1)
	}
	s := &guessState{value: own.value, place: own.at(net)}
	gs.m[g.hash], gs.byValue[s.place] = s, s
	return s
}

// maxAlike bounds the guesses of one value that are told apart. To have as many
// takes half a million guesses at one login, far more than any limit lets by.
const maxAlike = 8

// dropLocked forgets a guess.
func (gs *guesses) dropLocked(h guessHash, s *guessState) {
	delete(gs.m, h)
	if gs.byValue[s.place] == s {
		delete(gs.byValue, s.place)
	}
}

// end says what came of a guess in flight: success, failure, or neither.
func (gs *guesses) end(g *guess, addr netip.Prefix, now int64, good, failed bool) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	s := gs.m[g.hash]
	if s == nil {
		return
	}
	if failed && !s.failed {
		s.at = addr
	}
	if good || failed {
		s.good, s.failed, s.sent = good, failed, now
	}
	if s.flight != nil {
		close(s.flight)
		s.flight = nil
	}
}

// forget drops what is known of the guesses from within a network, or of all.
func (gs *guesses) forget(p netip.Prefix, all bool) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	for h, s := range gs.m {
		if s.flight == nil && (all || p.Overlaps(s.at)) {
			gs.dropLocked(h, s)
		}
	}
}

// sweep forgets guesses that are too old to matter.
func (gs *guesses) sweep(now int64) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	for h, s := range gs.m {
		if s.flight == nil && now-s.seen > guessMemory.Milliseconds() {
			gs.dropLocked(h, s)
		}
	}
	gs.m, gs.byValue = slim(gs.m, &gs.most.m), slim(gs.byValue, &gs.most.byValue)
}

// evictLocked forgets the longest unseen of a few.
func (gs *guesses) evictLocked(now int64) {
	var victim guessHash
	oldest, n := now+1, 0
	for h, s := range gs.m {
		if s.flight == nil && s.seen < oldest {
			victim, oldest = h, s.seen
		}
		if n++; n == evictSample {
			break
		}
	}
	if s := gs.m[victim]; s != nil {
		gs.dropLocked(victim, s)
	}
}
