package proxy

import (
	"sync"
	"testing"

	"mailreeve/protocol"
)

// Of a cut and a message's end that come together exactly one wins.
func TestGateHasOneWinner(t *testing.T) {
	for range 2000 {
		var g gate
		g.follow(protocol.Idle)
		var cut, sent bool
		var wg sync.WaitGroup
		wg.Go(func() { cut = g.cut(gateMessage) })
		wg.Go(func() {
			g.follow(protocol.Data)
			g.follow(protocol.Final)
			sent = !g.closed()
		})
		wg.Wait()
		if cut == sent {
			t.Fatalf("cut %v, message sent %v", cut, sent)
		}
	}
}

func TestGateBounds(t *testing.T) {
	for _, test := range []struct {
		phase protocol.Phase
		most  int32
		cut   bool
	}{
		{protocol.Idle, gateOpen, true}, {protocol.Owed, gateOpen, true}, {protocol.LoggedIn, gateOpen, true},
		{protocol.Data, gateOpen, false}, {protocol.Data, gateMessage, true},
		{protocol.Final, gateMessage, false}, {protocol.Judged, gateMessage, false},
		{protocol.Final, gateReply, true}, {protocol.Judged, gateReply, true},
	} {
		var g gate
		g.follow(test.phase)
		if got := g.cut(test.most); got != test.cut {
			t.Errorf("%s, most %d: cut %v, want %v", test.phase, test.most, got, test.cut)
		}
		if test.cut {
			if g.follow(protocol.Final); !g.closed() || g.cut(gateReply) {
				t.Error("a cut was undone, or came twice")
			}
		}
	}
}
