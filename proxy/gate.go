package proxy

import (
	"sync/atomic"

	"mailreeve/protocol"
)

// A gate decides between a cut and a message's end, or a credential's reply,
// when both come at the same moment: whoever moves it first wins. If the end of
// a message goes to the server, its reply goes to the client, or mail would be
// delivered twice; if the cut wins, the end of the message never leaves.
//
// The relay moves the gate, with mu held, after every call of the conversation
// and before anything of that call is written. A cut moves it from anywhere,
// without a lock.
type gate struct{ state atomic.Int32 }

const (
	gateOpen    int32 = iota // a cut may come
	gateMessage              // a message is on its way: only a timer may cut
	gateReply                // a message's or a credential's reply is awaited
	gateCut                  // a last word is being said: nothing else may pass
)

// follow moves the gate to where a phase needs it, unless a cut has come.
func (g *gate) follow(p protocol.Phase) {
	want := gateOpen
	switch p {
	case protocol.Data:
		want = gateMessage
	case protocol.Final, protocol.Judged:
		want = gateReply
	}
	for {
		old := g.state.Load()
		if old == want || old == gateCut || g.state.CompareAndSwap(old, want) {
			return
		}
	}
}

// cut closes the gate for good if it stands no further than at most. It
// returns false if it does not, or if another cut came first.
func (g *gate) cut(most int32) bool {
	for {
		old := g.state.Load()
		if old > most || old == gateCut {
			return false
		}
		if g.state.CompareAndSwap(old, gateCut) {
			return true
		}
	}
}

// closed tells whether a cut has come.
func (g *gate) closed() bool { return g.state.Load() == gateCut }

// open tells whether a cut may come.
func (g *gate) open() bool { return g.state.Load() == gateOpen }
