package proxy

import (
	"net"
	"strings"
	"testing"

	"mailreeve/guard"
)

// The start is over when the servers behind have been looked at: only then is
// anybody served.
func TestReadyOnceTheServersHaveBeenLookedAt(t *testing.T) {
	b := newBed(t, imapPlain, imap, nil)
	b.server.AwaitLook(t.Context())
	if err := b.server.Ready(); err != nil {
		t.Errorf("after the look: %v", err)
	}
}

// A server that says nothing does not hold the start up, and is told from one
// that answers wrongly.
func TestASilentServerDoesNotHoldTheStartUp(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	b := newBed(t, imapPlain, imap, func(cfg *Config, _ *guard.Config) {
		cfg.Upstreams[0].Addresses = []string{silent.Addr().String()}
	})
	b.server.AwaitLook(t.Context())
	if err := b.server.Ready(); err == nil || !strings.Contains(err.Error(), "not been looked at yet") {
		t.Errorf("nothing has answered, and it says %v", err)
	}
}
