package proxy

import (
	"errors"
	"io"

	"mailreeve/protocol"
)

// goBlind leaves the bytes of both sides alone from now on. What the
// conversation remembers (capabilities, commands) is let go of: thousands of
// connections idle in this state. It is called with mu held.
func (c *conn) goBlind() {
	c.blind = true
	c.conv = unseen{}
	c.turn.Broadcast()
}

// unseen is the conversation of a connection that has gone blind. Nothing is
// shown to it; what was decided at the same moment may still be told.
type unseen struct{}

func (unseen) Start() protocol.Step        { return protocol.Step{} }
func (unseen) Client([]byte) protocol.Step { return protocol.Step{Do: protocol.End} }
func (unseen) Server([]byte) protocol.Step { return protocol.Step{Do: protocol.End} }
func (unseen) Verdict(protocol.Verdict)    {}
func (unseen) Dialled()                    {}
func (unseen) Secured()                    {}
func (unseen) ServerGone() protocol.Step   { return protocol.Step{Do: protocol.End} }
func (unseen) Phase() protocol.Phase       { return protocol.LoggedIn }

// copyBlind moves bytes unseen from one side to the other until the first ends.
// It needs no pen: nobody else writes to that side any more. It returns false.
func (c *conn) copyBlind(from, to *end) bool {
	for {
		if b := from.in.bytes(); len(b) > 0 {
			if _, err := to.Write(b); err != nil {
				c.stop("closed", err)
				return false
			}
			full := len(b) >= smallBuffer
			from.in.use(len(b))
			if full && splices(from, to) {
				from.in.free() // a small one does for what begins the next burst
				readErr, writeErr := c.splice(from, to)
				if readErr != nil {
					c.blindStopped(from, to, readErr)
					return false
				}
				if writeErr != nil {
					c.stop("closed", writeErr)
					return false
				}
			}
		}
		if err := c.read(from); err == errResting {
			return false
		} else if err != nil {
			c.blindStopped(from, to, err)
			return false
		}
	}
}

// blindStopped deals with the end of one side's bytes. A client's is passed on
// and the server may finish what it has to say; a server that has closed does
// not listen any more, so all is over.
func (c *conn) blindStopped(from, to *end, err error) {
	switch {
	case from != c.client:
		c.endGently("server-closed")
	case errors.Is(err, io.EOF) && to.CloseWrite() == nil:
	default:
		c.stop(clientEnd(err), err)
	}
}
