package proxy

import (
	"errors"
	"time"

	"mailreeve/protocol"
)

// dial connects to the server for the line that needs it. It is called with mu
// held; it returns true, with mu held, if the conversation shall go on.
func (c *conn) dial() bool {
	if c.early {
		// Who only looks whether we are there (echo QUIT | nc) needs no server.
		c.early = false
		if c.tellEvent(protocol.Event{Kind: protocol.EarlyTalk}) {
			c.mu.Unlock()
			c.cut(protocol.SayBanned, "banned", gateReply)
			return false
		}
	}
	facts := c.facts()
	c.mu.Unlock()
	ctx, done := c.during()
	server, greeting, address, err := c.service.upstream.dial(ctx, facts)
	done()
	if err == nil || errors.Is(err, errNoServer) {
		c.service.server.guard.ReportDial(c.service.Listener.Upstream, err == nil)
	}
	c.mu.Lock()
	if err != nil {
		step := c.conv.ServerGone()
		c.notePhase()
		c.tell(&step)
		c.deliver(&c.client.in, 0, &protocol.Step{ToClient: step.ToClient, Forward: true})
		if !c.over {
			c.detail = err
		}
		c.mu.Unlock()
		c.endGently("no-server")
		return false
	}
	if c.over {
		c.mu.Unlock()
		server.Close()
		return false
	}
	if len(greeting) > 0 {
		server.in.put(greeting)
	} else {
		server.greeting = true
		_ = server.tcp.SetReadDeadline(time.Now().Add(time.Duration(c.service.timeouts.Greeting)))
	}
	c.server, c.address = server, address
	c.conv.Dialled()
	c.notePhase()
	c.workers++
	c.service.server.pumps.run(func() { c.pumpServer(server) })
	return true
}

// startTLS lets the client shake hands. Whatever it sent behind its STARTTLS
// would be taken for protected data afterwards: it is an attack, or a client
// that cannot be helped. Called with mu held; returns true with mu held.
func (c *conn) startTLS(step *protocol.Step) bool {
	goAhead := append([]byte(nil), step.ToClient...)
	server := c.server
	c.server = nil
	c.client.in.use(step.Take)
	if len(c.client.in.bytes()) > 0 || c.client.unread() > 0 {
		banned := c.tellEvent(protocol.Event{Kind: protocol.Injection})
		c.mu.Unlock()
		if server != nil {
			server.Close()
		}
		if banned {
			c.cut(protocol.SayBanned, "banned", gateReply)
		} else {
			c.cut(protocol.SayViolation, "starttls-injection", gateReply)
		}
		return false
	}
	c.talking.Store(false)
	c.mu.Unlock()
	if server != nil {
		server.Close()
	}
	if !c.write(c.client, &c.clientPen, goAhead) {
		c.stop("client-gone", nil)
		return false
	}
	if err := c.secure(); err != nil {
		c.handshakeFailed(err)
		return false
	}
	c.mu.Lock()
	c.conv.Secured()
	c.authenticated.Store(false) // what was said in clear is forgotten (RFC 3207 section 4.2)
	c.login = ""
	c.notePhase()
	c.heard.Store(moment())
	c.talking.Store(true)
	return true
}
