package proxy

import "mailreeve/protocol"

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
