package proxy

import (
	"context"
	"net/netip"
	"sync"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// arrivals bounds how often an address, and its network, may connect. Who
// connects too often is refused, not punished: an office after a restart does
// it too. What is refused is an event all the same, without points by default.
type arrivals struct {
	address pace
	network pace

	// events waits for the guard outside of the accept loop, which must not
	// wait itself. What does not fit is not told.
	events chan arrivalEvent
}

type arrivalEvent struct {
	origin guard.Origin
	kind   protocol.Kind
}

func newArrivals() *arrivals { return &arrivals{events: make(chan arrivalEvent, 256)} }

// refuses counts a connection and gives the reason why it may not come in, ""
// if it may.
func (a *arrivals) refuses(addr netip.Addr, l *Limits, now int64) (reason string) {
	if !a.address.takes(sourceKey(addr), l.ConnectionRate, now) {
		return "rate"
	}
	if !a.network.takes(networkKey(addr), l.NetworkRate, now) {
		return "network-rate"
	}
	return ""
}

// networkKey is the network of an address: IPv4 /24, IPv6 /48, as the guard
// has it.
func networkKey(a netip.Addr) netip.Addr {
	bits := 48
	if a.Is4() {
		bits = 24
	}
	if p, err := a.Prefix(bits); err == nil {
		return p.Addr()
	}
	return a
}

// report tells the guard of a refusal, without waiting.
func (a *arrivals) report(origin guard.Origin, reason string) {
	e := arrivalEvent{origin, protocol.ConnectionRate}
	switch reason {
	case "address-limit", "network-limit":
		e.kind = protocol.TooManyConnections
	case "rate", "network-rate":
	default:
		return // no fault of this client
	}
	select {
	case a.events <- e:
	default:
	}
}

// tell passes the events on until ctx ends.
func (a *arrivals) tell(ctx context.Context, g *guard.Guard) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-a.events:
			g.Report(&e.origin, "", protocol.Event{Kind: e.kind})
		}
	}
}

// A pace lets a number of arrivals of one key through at once, and from there
// on so many in a period, evenly (the generic cell rate algorithm): one figure a
// key, and no edge of a window to wait for.
type pace struct {
	mu sync.Mutex
	// full is when each key's arrivals will all have been made good, in the
	// clock of moment.
	full map[netip.Addr]int64
}

// maxPaced bounds the keys, about 50 bytes each; paceSample is how many are
// looked at for one that can be forgotten.
const (
	maxPaced   = 100_000
	paceSample = 8
)

func (p *pace) takes(key netip.Addr, limit guard.Limit, now int64) bool {
	if limit.Off() {
		return true
	}
	period := int64(limit.Period)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.full == nil {
		p.full = map[netip.Addr]int64{}
	}
	due, known := p.full[key]
	if !known && len(p.full) >= maxPaced {
		p.forget()
	}
	due = max(due, now) + int64(float64(period)/limit.Points)
	if due-now > period {
		return false
	}
	p.full[key] = due
	return true
}

// forget drops, of some keys, the one that is nearest to being made good.
func (p *pace) forget() {
	var least netip.Addr
	seen := 0
	for key, due := range p.full {
		if seen == 0 || due < p.full[least] {
			least = key
		}
		if seen++; seen == paceSample {
			break
		}
	}
	delete(p.full, least)
}
