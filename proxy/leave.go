package proxy

import (
	"errors"
	"io"

	"mailreeve/protocol"
)

// clientStopped is called when nothing more will come from the client. No
// credential is with the server then: while one is, the client is not read.
func (c *conn) clientStopped(err error) {
	c.mu.Lock()
	c.left = true
	server := c.server
	halfClosed := errors.Is(err, io.EOF) && server != nil && !c.over
	c.mu.Unlock()
	if !halfClosed {
		c.stop(clientEnd(err), err)
		return
	}
	c.serverPen.Lock()
	err = server.CloseWrite()
	c.serverPen.Unlock()
	if err != nil {
		c.stop("client-closed", err)
	}
}

// notePresence remembers that the client was there when the server last spoke
// without judging its credential: if the server closes then (IMAP's "* BYE
// [UNAVAILABLE]"), that the client goes as well is no sign of a guess.
func (c *conn) notePresence() {
	if c.attempt != nil && protocol.Phase(c.phase.Load()) == protocol.Judged {
		c.present = !c.client.gone()
	}
}

func clientEnd(err error) string {
	if errors.Is(err, io.EOF) {
		return "client-closed"
	}
	return "client-gone"
}

// serverStopped is called when nothing more will come from the server.
func (c *conn) serverStopped(server *end, err error) {
	c.mu.Lock()
	if c.over || c.server != server {
		c.mu.Unlock()
		return
	}
	why := "server-closed"
	if c.left {
		why = "client-closed"
	}
	step := c.conv.ServerGone()
	if step.Outcome == protocol.Neutral && !c.present && (c.left || c.client.gone()) {
		step.Outcome = protocol.Left
	}
	c.notePhase()
	if c.tell(&step) {
		c.mu.Unlock()
		c.cut(protocol.SayBanned, "banned", gateReply)
		return
	}
	step.Forward, step.Take = false, 0
	c.deliver(&server.in, 0, &step)
	c.detail = err
	c.mu.Unlock()
	c.endGently(why)
}
