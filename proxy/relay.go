package proxy

import (
	"errors"
	"sync"
	"time"

	"mailreeve/protocol"
)

// pumpClient carries the client's bytes to the conversation and, as far as it
// allows, to the server, until the connection is over.
func (c *conn) pumpClient() {
	defer c.leave()
	for c.showClient() {
		if err := c.read(c.client); err == errResting {
			return
		} else if err != nil {
			c.clientStopped(err)
			return
		}
	}
}

// pumpServer does the same for the server's bytes.
func (c *conn) pumpServer(server *end) {
	defer c.leave()
	for c.showServer(server) {
		if err := c.read(server); err == errResting {
			return
		} else if err != nil {
			c.serverStopped(server, err)
			return
		}
	}
}

// errResting tells a pump to leave: the connection has fallen idle.
var errResting = errors.New("resting")

// read waits for more of one side. A deadline passes either because the
// connection shall rest, or because the server has not greeted in time.
func (c *conn) read(e *end) error {
	for {
		n, err := e.in.fill(e)
		if n > 0 || err == nil {
			c.noteRead(e, n)
			return nil
		}
		if !isTimeout(err) || e.greeting {
			return err
		}
		if c.settleDown(e) {
			return errResting
		}
	}
}

func (c *conn) noteRead(e *end, n int) {
	now := moment()
	c.moved.Store(now)
	if e == c.client {
		c.heard.Store(now)
		c.bytesIn.Add(int64(n))
	} else {
		c.bytesOut.Add(int64(n))
	}
	if e.greeting {
		e.greeting = false
		_ = e.tcp.SetReadDeadline(time.Time{})
	}
	if c.resting.Load() {
		c.stir()
	}
}

// showClient lets the conversation decide about what the client has sent. It
// returns true when more must be read, false when the connection is over.
func (c *conn) showClient() bool {
	in := &c.client.in
	pass := 0 // bytes of in that may go on and have not been written
	c.mu.Lock()
	for {
		if c.over || c.gate.closed() {
			c.mu.Unlock()
			return false
		}
		if c.blind {
			c.mu.Unlock()
			return c.copyBlind(c.client, c.server)
		}
		if c.behind {
			c.turn.Wait()
			continue
		}
		step := c.conv.Client(in.bytes()[pass:])
		c.notePhase()
		if step.Take > 0 {
			c.understood.Store(true)
		}
		if c.tell(&step) {
			c.mu.Unlock()
			c.cut(protocol.SayBanned, "banned", gateReply)
			return false
		}
		if step.Forward {
			pass += step.Take
			if step.Do == protocol.Continue && len(step.ToServer) == 0 && len(step.ToClient) == 0 {
				continue
			}
		}
		if step.Do == protocol.StartTLS {
			// A conversation waits for earlier replies first, so nothing is
			// held back to be passed on here.
			if !c.startTLS(&step) {
				return false
			}
			continue
		}
		released := c.deliver(in, pass, &step)
		pass = 0
		if released && step.Do == protocol.Wait {
			continue // what it would wait for may have come meanwhile
		}
		if !c.obeyClient(&step) {
			return step.Do == protocol.More
		}
	}
}

// obeyClient does what a step on the client's side asks for, with mu held. It
// returns true if the conversation shall be shown the rest; else mu is free.
func (c *conn) obeyClient(step *protocol.Step) bool {
	switch step.Do {
	case protocol.Continue:
	case protocol.More:
		stuck := c.client.in.full()
		c.mu.Unlock()
		if stuck {
			// Cannot be: a conversation takes or ends before that much.
			c.stop("stuck", errors.New("the conversation asks for more than it may be shown"))
		}
		return false
	case protocol.Wait:
		c.turn.Wait()
	case protocol.Hold:
		if !c.judge(step.Credential) {
			c.mu.Unlock()
			c.cut(protocol.SayBanned, "banned", gateReply)
			step.Do = protocol.End
			return false
		}
	case protocol.Dial:
		return c.dial()
	case protocol.Blind:
		c.goBlind()
	case protocol.End:
		c.remark = step.Why
		c.mu.Unlock()
		c.endGently("dialogue")
		return false
	}
	return true
}

// showServer is showClient for the server's bytes.
func (c *conn) showServer(server *end) bool {
	in := &server.in
	pass := 0
	c.mu.Lock()
	for {
		if c.over || c.server != server || c.gate.closed() {
			c.mu.Unlock()
			return false
		}
		if c.blind {
			c.mu.Unlock()
			return c.copyBlind(server, c.client)
		}
		step := c.conv.Server(in.bytes()[pass:])
		c.noteBehind(step.Do != protocol.More && len(in.bytes()) > pass+step.Take)
		c.notePhase()
		if c.tell(&step) {
			c.mu.Unlock()
			c.cut(protocol.SayBanned, "banned", gateReply)
			return false
		}
		c.pause()
		if step.Take > 0 {
			c.turn.Broadcast()
			c.notePresence()
		}
		if step.Forward {
			pass += step.Take
			if step.Do == protocol.Continue && len(step.ToServer) == 0 && len(step.ToClient) == 0 {
				continue
			}
		}
		if step.Do == protocol.Blind {
			c.goBlind() // before mu is let go: Client is not to be called again
		}
		c.deliver(in, pass, &step)
		pass = 0
		if c.abandoned() {
			c.mu.Unlock()
			c.stop("client-gone", nil)
			return false
		}
		if c.cutLater.Load() && c.gate.open() {
			c.mu.Unlock()
			c.cut(protocol.SayBanned, "banned", gateReply)
			return false
		}
		switch step.Do {
		case protocol.More:
			stuck := in.full()
			c.mu.Unlock()
			if stuck {
				c.stop("stuck", errors.New("the conversation asks for more than it may be shown"))
			}
			return !stuck
		case protocol.End:
			c.remark = step.Why
			c.mu.Unlock()
			c.endGently("dialogue")
			return false
		}
	}
}

// noteBehind keeps the client's pump waiting while there is something left of
// what was read from the server: that answers nothing that goes to the server
// from now on, and must not be taken for it. The beginning of a line is not
// waited for, since nobody knows when the rest comes. It is called with mu held.
func (c *conn) noteBehind(behind bool) {
	if c.behind && !behind {
		c.turn.Broadcast()
	}
	c.behind = behind
}

// deliver writes what a step lets pass and what we say ourselves. It is called
// with mu held and returns with mu held, but lets go of it while it writes;
// the pens it needs are taken before that. A server that cannot be written to is
// left to the goroutine that reads from it; for a client see abandoned. It
// returns whether it let go of mu.
func (c *conn) deliver(in *input, pass int, step *protocol.Step) bool {
	fromClient := in == &c.client.in
	toServer, toClient := step.ToServer, step.ToClient
	forwarded := in.bytes()[:pass]
	if pass == 0 && len(toServer) == 0 && len(toClient) == 0 {
		if !step.Forward {
			in.use(step.Take)
		}
		return false
	}
	// The conversation may be called by the other side once mu is free.
	toServer = append([]byte(nil), toServer...)
	toClient = append([]byte(nil), toClient...)
	server := c.server
	useServer := server != nil && (len(toServer) > 0 || fromClient && pass > 0)
	// No server answers the middle of a message.
	middle := protocol.Phase(c.phase.Load()) == protocol.Data
	useClient := len(toClient) > 0 || !fromClient && pass > 0
	deaf := false
	if useClient {
		c.clientPen.Lock()
	}
	if useServer {
		c.serverPen.Lock()
	}
	c.mu.Unlock()
	if useServer {
		if fromClient && middle {
			c.writePart(server, forwarded)
		} else if fromClient {
			c.writeHeld(server, forwarded)
		}
		c.writeHeld(server, toServer)
		c.serverPen.Unlock()
	}
	if useClient {
		if !fromClient {
			deaf = !c.writeHeld(c.client, forwarded)
		}
		deaf = !c.writeHeld(c.client, toClient) || deaf
		c.clientPen.Unlock()
	}
	in.use(pass)
	if !step.Forward {
		in.use(step.Take)
	}
	c.mu.Lock()
	c.deaf = c.deaf || deaf
	return true
}

// abandoned tells whether the client takes nothing any more and nothing is
// under way that is worth waiting for: its reset shows as the end of its bytes
// where a write has met it first, and a server that talks on would be listened
// to for as long as it does. It closes the gate then: a credential that passed
// in this moment would be judged by the server and counted by nobody. It is
// called with mu held.
func (c *conn) abandoned() bool { return c.deaf && c.gate.cut(gateMessage) }

// writeHeld writes with the side's pen in hand. Once a last word is due
// nothing else passes.
func (c *conn) writeHeld(e *end, p []byte) bool {
	if len(p) == 0 {
		return true
	}
	if c.gate.closed() {
		return false
	}
	_, err := e.Write(p)
	return err == nil
}

// writePart is writeHeld for what more must follow.
func (c *conn) writePart(e *end, p []byte) {
	if len(p) > 0 && !c.gate.closed() {
		_, _ = e.WriteMore(p)
	}
}

// write takes the pen and writes.
func (c *conn) write(e *end, pen *sync.Mutex, p []byte) bool {
	pen.Lock()
	defer pen.Unlock()
	return c.writeHeld(e, p)
}
