package proxy

import (
	"time"

	"mailreeve/protocol"
)

// A drip is what the sweeper knows of the message that a client is sending. A
// byte now and then keeps a connection, and one at the server, busy for ever; a
// silence within a message is bounded by timeouts.command, this bounds the
// whole.
type drip struct {
	began   int64 // when it was first seen
	sent    int64 // what the client had sent by then, in bytes
	seen    int64 // the last look
	message int64 // c.progressed then: another message, another drip
}

// drips tells whether the client sends its message more slowly than it may: it
// has timeouts.command, and a second for each min-data-rate bytes. The time in
// which the server takes nothing is not the client's.
func (c *conn) drips(now int64) bool {
	rate := c.service.limits.MinDataRate
	if rate == 0 || protocol.Phase(c.phase.Load()) != protocol.Data {
		c.drip = nil
		return false
	}
	d := c.drip
	if d == nil || d.message != c.progressed.Load() {
		c.drip = &drip{began: now, sent: c.bytesIn.Load(), seen: now, message: c.progressed.Load()}
		return false
	}
	if c.serverTakesNothing() {
		d.began += now - d.seen
	}
	d.seen = now
	sent := float64(c.bytesIn.Load() - d.sent)
	allowed := float64(c.service.timeouts.Command) + sent/float64(rate)*float64(time.Second)
	return float64(now-d.began) > allowed
}

// serverTakesNothing tells whether a write to the server is under way. It does
// not wait for mu: whoever has it is not waiting for the client either.
func (c *conn) serverTakesNothing() bool {
	if !c.mu.TryLock() {
		return true
	}
	defer c.mu.Unlock()
	return c.server != nil && c.server.writing.Load() != 0
}

// offence is the event that a client has made for itself by running out of
// time, "" if none: one that is logged in or has delivered may be as idle as it
// likes, but not hold up a message.
func (c *conn) offence(why string) protocol.Kind {
	switch {
	case c.authenticated.Load():
	case why == slowDrip:
		return protocol.SlowDrip
	case !c.delivered.Load():
		return protocol.Loitering
	}
	return ""
}

// slowDrip is why a connection ends whose client drips.
const slowDrip = "slow-drip"

// leaving is the event that a client makes for itself by going away before
// anything came of the connection, "" if none. Health checks do it, so by
// default it scores nothing.
func (c *conn) leaving() protocol.Kind {
	switch {
	case c.why != "client-closed" && c.why != "client-gone", c.authenticated.Load(), c.delivered.Load():
		return ""
	case c.understood.Load():
		return protocol.LeftEarly
	}
	return protocol.LeftSilently
}
