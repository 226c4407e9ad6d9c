package guard

import (
	"net/netip"
	"sync"
)

// A pace caps how many credentials an address may have judged, whatever comes
// of them: attemptBurst at once, then one each attemptEvery. It is not exact,
// it need not be: nothing but the server's load depends on it.
type pace struct {
	mu sync.Mutex
	// until is when an address's burst is full again (GCRA's theoretical
	// arrival time), in milliseconds.
	until map[netip.Prefix]int64
	most  int // see slim
}

// paceRule is the name that a refusal by pace goes by.
const paceRule = "pace"

func newPace() *pace { return &pace{until: make(map[netip.Prefix]int64)} }

func (p *pace) allow(addr netip.Prefix, now int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := max(p.until[addr], now) + attemptEvery.Milliseconds()
	if at-now > attemptBurst*attemptEvery.Milliseconds() {
		return false
	}
	if len(p.until) > defaultMaxAddresses {
		clear(p.until) // everybody starts with a full burst again
	}
	p.until[addr] = at
	return true
}

func (p *pace) sweep(now int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a, at := range p.until {
		if at <= now {
			delete(p.until, a)
		}
	}
	p.until = slim(p.until, &p.most)
}
