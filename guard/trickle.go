package guard

import (
	"net/netip"
	"time"
)

// A trickle lets a few strangers try a guarded login: in each interval one
// ticket for anybody and one for networks known for some success. The moment
// from which a ticket can be had is drawn at random, so that who hammers
// fastest is not sure to have it. A network gets one ticket an interval, and
// none for a day after it failed.
type trickle struct {
	until  int64    // when the interval ends
	from   [2]int64 // when each ticket can be had
	taken  [2]bool
	last   map[string]int64 // when a network had its last ticket
	failed map[string]int64 // when a network failed
}

// tickets of a trickle.
const (
	anybody = iota
	knownNetwork
)

// draw tells whether the asking network gets a ticket now. random is in [0,1).
func (t *trickle) draw(now int64, ask *ticketAsk, random func() float64) bool {
	every := ask.every.Milliseconds()
	if until := (now/every + 1) * every; until != t.until || t.last == nil {
		t.until, t.taken = until, [2]bool{}
		t.last = make(map[string]int64)
		for i := range t.from {
			// The last tenth is left out, or a ticket may come so late that
			// nobody calls for it.
			t.from[i] = until - every + int64(random()*0.9*float64(every))
		}
	}
	if at, ok := t.failed[ask.network]; ok {
		if now-at < trickleBlocked.Milliseconds() {
			return false
		}
		delete(t.failed, ask.network)
	}
	if _, had := t.last[ask.network]; had {
		return false
	}
	kinds := []int{anybody}
	if ask.known {
		kinds = []int{knownNetwork, anybody}
	}
	for _, i := range kinds {
		if !t.taken[i] && now >= t.from[i] {
			t.taken[i] = true
			t.last[ask.network] = now
			return true
		}
	}
	return false
}

// fail remembers that a network's ticket was used in vain.
func (t *trickle) fail(now int64, network string) {
	if t.failed == nil {
		t.failed = make(map[string]int64)
	}
	if len(t.failed) >= maxTrickleNets {
		oldest, at := "", now
		for n, f := range t.failed {
			if f <= at {
				oldest, at = n, f
			}
		}
		delete(t.failed, oldest)
	}
	t.failed[network] = now
}

// idle tells that there is nothing left to remember.
func (t *trickle) idle(now int64) bool {
	if now < t.until {
		return false
	}
	for _, at := range t.failed {
		if now-at < trickleBlocked.Milliseconds() {
			return false
		}
	}
	return true
}

func (l *memoryLedger) ticket(now time.Time, ask *ticketAsk) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trickleLocked(now.UnixMilli(), ask.login).draw(now.UnixMilli(), ask, l.random.Float64)
}

func (l *memoryLedger) trickleLocked(now int64, login string) *trickle {
	t := l.trickles[login]
	if t == nil {
		if len(l.trickles) >= l.bounds.logins {
			l.tidyTricklesLocked(now)
		}
		t = &trickle{}
		l.trickles[login] = t
	}
	return t
}

func (l *memoryLedger) ticketFailed(now time.Time, login, network string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trickleLocked(now.UnixMilli(), login).fail(now.UnixMilli(), network)
	l.dirtyTrickles[login] = struct{}{}
}

// drainTrickles gives the trickles in which a network failed since the last
// call. What tickets there were is forgotten by a restart: one more guess.
func (l *memoryLedger) drainTrickles() (out []record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for login := range l.dirtyTrickles {
		r := record{bucket: bucketTrickles, key: login}
		if t := l.trickles[login]; t != nil && len(t.failed) > 0 {
			r.value = encodeJSON(t.failed)
		}
		out = append(out, r)
	}
	clear(l.dirtyTrickles)
	return out
}

// loadTrickle takes from the store which networks failed.
func (l *memoryLedger) loadTrickle(login string, failed map[string]int64, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &trickle{failed: failed}
	for network, at := range failed {
		failed[network] = min(at, now) // the clock may have gone back
	}
	if len(l.trickles) >= l.bounds.logins || t.idle(now) {
		l.dirtyTrickles[login] = struct{}{}
		return
	}
	l.trickles[login] = t
}

func (l *memoryLedger) pardon(upto int64, which func(key) bool, _ string) {
	l.forgetFailed(upto, which)
}

// forgetFailed forgets which networks failed up to a moment, of the logins and
// networks that which chooses. It gives those networks by their logins.
func (l *memoryLedger) forgetFailed(upto int64, which func(key) bool) map[string][]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	forgot := make(map[string][]string)
	for login, t := range l.trickles {
		for network, at := range t.failed {
			p, _ := netip.ParsePrefix(network)
			if at <= upto && (which(key{kind: byLogin, login: login}) || which(key{kind: byNetwork, prefix: p})) {
				delete(t.failed, network)
				l.dirtyTrickles[login] = struct{}{}
				forgot[login] = append(forgot[login], network)
			}
		}
	}
	return forgot
}

// sweepTricklesLocked forgets idle trickles among a few.
func (l *memoryLedger) sweepTricklesLocked(now int64) {
	n := 0
	for login, t := range l.trickles {
		if t.idle(now) {
			delete(l.trickles, login)
			l.dirtyTrickles[login] = struct{}{}
		}
		if n++; n == sweepTrickles {
			return
		}
	}
}

// sweepTrickles bounds the trickles looked at in one sweep.
const sweepTrickles = 100

// tidyTricklesLocked makes room: idle trickles first, else any.
func (l *memoryLedger) tidyTricklesLocked(now int64) {
	for login, t := range l.trickles {
		if t.idle(now) {
			delete(l.trickles, login)
			l.dirtyTrickles[login] = struct{}{}
		}
	}
	for login := range l.trickles {
		if len(l.trickles) < l.bounds.logins {
			break
		}
		delete(l.trickles, login)
		l.dirtyTrickles[login] = struct{}{}
	}
}
