package proxy

import (
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// sweepEvery is how often connections are looked at for a time that is up.
const sweepEvery = 250 * time.Millisecond

// leftWait is how long the server may take to judge a credential whose client
// has gone.
const leftWait = 60 * time.Second

// sweep is the one timer of all connections.
func (s *Server) sweep() {
	defer s.running.Done()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var list []*conn
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		s.closer.flush()
		s.pumps.thin()
		s.handshakers.thin()
		now := moment()
		list = s.conns.list(list[:0])
		for _, c := range list {
			if why := c.overdue(now); why != "" && c.timedOut.CompareAndSwap(false, true) {
				s.running.Go(func() { c.timeUp(why) })
			} else if c.mayRest(now) {
				c.rest()
			}
		}
		clear(list) // it must not keep those alive that end
	}
}

// overdue tells which of its times is up, "" if none. While the server owes a
// reply none runs, except for a client that has gone or that takes nothing.
func (c *conn) overdue(now int64) string {
	if !c.talking.Load() || c.gate.closed() || c.asking.Load() {
		// The header's and the handshake's deadlines are the sockets'; and who
		// waits for the guard waits for us.
		return ""
	}
	t := &c.service.timeouts
	past := func(since int64, limit guard.Duration) bool { return now-since > int64(limit) }
	patience := t.Command
	if c.authenticated.Load() {
		patience = c.service.idleLimit() // a laptop asleep in a download
	}
	if w := c.client.writing.Load(); w != 0 && past(w, patience) {
		return "client-stalled"
	}
	switch protocol.Phase(c.phase.Load()) {
	case protocol.Judged:
		if past(c.asked.Load(), guard.Duration(leftWait)) && c.client.gone() {
			return "client-gone"
		}
	case protocol.Data:
		if c.drips(now) {
			return slowDrip
		}
		if past(c.heard.Load(), t.Command) {
			return "timeout-data"
		}
	case protocol.Owed:
		// A server that hangs keeps a client waiting, but not one that has gone.
		if past(c.moved.Load(), t.Command) && c.client.gone() {
			return "client-gone"
		}
	case protocol.LoggedIn:
		if past(c.moved.Load(), c.service.idleLimit()) {
			return "timeout-idle"
		}
	case protocol.Idle:
		return c.idleOverdue(past)
	}
	return ""
}

// idleOverdue looks at a client whose turn it is.
func (c *conn) idleOverdue(past func(int64, guard.Duration) bool) string {
	t := &c.service.timeouts
	mail := c.service.Protocol == "smtp"
	authenticated := c.authenticated.Load()
	switch {
	case !c.understood.Load() && past(c.began, t.FirstCommand):
		return "timeout-first-command"
	case !authenticated && !mail && past(c.began, t.Login):
		return "timeout-login"
	case !authenticated && mail && past(c.progressed.Load(), t.Mail):
		return "timeout-mail"
	case past(c.heard.Load(), t.Command):
		return "timeout-command"
	}
	return ""
}

// idleLimit is how long a client that is logged in may be silent.
func (s *service) idleLimit() guard.Duration {
	if s.Protocol == "pop3" {
		return s.timeouts.POP3Idle
	}
	return s.timeouts.IMAPIdle
}

// unblock ends a write to the client that does not come to its end. Whoever
// makes it has the client's pen, and mu may be with somebody who waits for that
// pen: without this nobody could end the connection.
func (c *conn) unblock() {
	if c.client.writing.Load() != 0 {
		_ = c.client.tcp.SetWriteDeadline(time.Now().Add(lastWordTimeout))
	}
}

// timeUp ends a connection whose time is up. A client that neither logged in
// nor delivered anything has loitered.
func (c *conn) timeUp(why string) {
	c.unblock()
	if !c.enter() {
		return
	}
	defer c.leave()
	switch why {
	case "client-gone", "client-stalled":
		// Whoever takes no answers has guessed all the same.
		c.mu.Lock()
		c.left = true
		c.mu.Unlock()
		c.end(why)
		return
	}
	if protocol.Phase(c.phase.Load()) == protocol.LoggedIn {
		c.end(why) // bytes may be under way unseen: there is no place for a word
		return
	}
	if c.cut(protocol.SayTimeout, why, gateMessage) == nil {
		_ = c.client.tcp.SetWriteDeadline(time.Time{})
		if c.gate.closed() {
			// It was not a reply that came first, but another cut: that has
			// its own deadline, and it is the last thing that ends it.
			_ = c.client.tcp.SetWriteDeadline(time.Now().Add(lastWordTimeout))
		}
		c.timedOut.Store(false) // what it was waited for came just now
		return
	}
	c.mu.Lock()
	c.left = true // a client that holds its answer back has guessed all the same
	if kind := c.offence(why); kind != "" {
		c.tellEvent(protocol.Event{Kind: kind})
	}
	c.mu.Unlock()
}
