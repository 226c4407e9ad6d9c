package proxy

import (
	"context"
	"errors"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// lastWordTimeout is how long a client may take to take our last word.
const lastWordTimeout = 500 * time.Millisecond

// cut ends the connection with a last word, if its gate stands no further than
// most; the relay itself may cut anywhere. From then on nothing else passes in
// either direction. It does not wait: the channel is closed when it is done,
// and nil if the connection may not be cut.
func (c *conn) cut(w protocol.Word, why string, most int32) <-chan struct{} {
	if !c.gate.cut(most) {
		return nil
	}
	done := make(chan struct{})
	// A writer that holds the pen and is stuck lets go by then.
	_ = c.client.tcp.SetWriteDeadline(time.Now().Add(lastWordTimeout))
	go c.farewell(w, why, done)
	return done
}

// farewell says the last word and closes.
func (c *conn) farewell(w protocol.Word, why string, done chan struct{}) {
	defer close(done)
	c.clientPen.Lock()
	if c.talking.Load() {
		c.client.tcp.ending.Store(true)
		_, _ = c.client.Write(c.service.proto.Say(w, c.service.name()))
		_ = c.client.CloseWrite()
		c.client.discard()
	}
	c.clientPen.Unlock()
	c.end(why)
}

// endGently closes after what was written has been handed to the kernel, so
// that the client can read it: unread input would turn the close into a reset.
func (c *conn) endGently(why string) {
	_ = c.client.tcp.SetWriteDeadline(time.Now().Add(lastWordTimeout))
	c.clientPen.Lock()
	c.client.tcp.ending.Store(true)
	if c.client.tls != nil {
		_ = c.client.tls.CloseWrite()
	}
	c.client.discard() // end tells the peer, once this is done
	c.clientPen.Unlock()
	c.end(why)
}

// discard drops what the kernel holds and nobody will read.
func (e *end) discard() {
	rc, err := e.tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = rc.Control(func(fd uintptr) { quickDiscard(int(fd)) })
}

// cutsWait is how long a deciding call of the guard waits for the cuts it
// caused. Nothing passes on those connections from the first moment on.
const cutsWait = 50 * time.Millisecond

// cutBanned ends the connections that a new ban concerns: not those that are
// logged in, nor the middle of a message, nor a credential that is with the
// server (its reply decides), nor the one whose event is just being judged:
// those end as soon as they may.
func (s *Server) cutBanned(ch guard.Change) {
	var cuts []<-chan struct{}
	for _, c := range s.conns.concerned(ch) {
		if c.authenticated.Load() {
			continue
		}
		c.cutLater.Store(true) // as soon as it may, if not now
		if c.deciding.Load() {
			continue
		}
		if done := c.cut(protocol.SayBanned, "banned", gateOpen); done != nil {
			cuts = append(cuts, done)
		}
	}
	if len(cuts) == 0 {
		return
	}
	timeout := time.After(cutsWait)
	for _, done := range cuts {
		select {
		case <-done:
		case <-timeout:
			return
		}
	}
}

// quietForDrain is for how long nothing must have moved before a drain ends a
// connection that is logged in. A client in IDLE is silent for minutes; within
// a transfer two seconds of silence are rare, and cost a repetition.
const quietForDrain = 2 * time.Second

// dismiss ends a connection for a shutdown as soon as that interrupts nothing:
// when it is the client's turn, or, after a login, when nothing moves.
func (c *conn) dismiss(now int64) {
	if !c.talking.Load() {
		return
	}
	switch protocol.Phase(c.phase.Load()) {
	case protocol.Idle:
		c.cut(protocol.SayShutdown, "shutdown", gateOpen)
	case protocol.LoggedIn:
		// Without a word: what is passed on unseen may be compressed. Servers
		// that stop do the same, and clients connect again.
		quiet := now-c.moved.Load() >= int64(quietForDrain) && c.client.writing.Load() == 0
		if quiet && c.gate.cut(gateOpen) {
			go c.endGently("shutdown")
		}
	}
}

// drain ends each connection as soon as that interrupts nothing, until none is
// left or ctx ends.
func (s *Server) drain(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		list := s.conns.list(nil)
		if len(list) == 0 {
			return nil
		}
		for _, c := range list {
			c.dismiss(moment())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// slots bounds how many do something at the same time.
type slots chan struct{}

func (s slots) tryTake() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s slots) take(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errNoSlot
	}
}

// errNoSlot: too many do it already.
var errNoSlot = errors.New("too many TLS handshakes at the same time")

func (s slots) give() { <-s }
