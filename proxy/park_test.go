package proxy

import (
	"testing"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// The end of a parked connection wakes it as well: whoever comes first, it ends
// once.
func TestParkedConnectionsEndByABan(t *testing.T) {
	b := newBed(t, Listener{Protocol: "imap", TLS: protocol.TLSStartTLS}, imap, nil)
	const many = 90
	for range many {
		b.dial("127.0.42.1").expect("* OK")
	}
	b.waitParked(many)
	if _, err := b.guard.AddBan(guard.BanRequest{Target: "127.0.42.1"}); err != nil {
		t.Fatal(err)
	}
	b.waitFor("the connections to end", func() bool { return b.server.conns.count() == 0 })
	b.waitParked(0)
}
