package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// A heldConn keeps what is written to it, and has nothing to read.
type heldConn struct {
	net.Conn // nil: nothing else is called
	written  bytes.Buffer
}

func (h *heldConn) Write(p []byte) (int, error)      { return h.written.Write(p) }
func (h *heldConn) Read([]byte) (int, error)         { return 0, errors.New("nothing") }
func (h *heldConn) SetWriteDeadline(time.Time) error { return nil }

// clientHello is what a client says first.
func clientHello() []byte {
	var held heldConn
	_ = tls.Client(&held, &tls.Config{InsecureSkipVerify: true}).Handshake()
	return held.written.Bytes()
}

// Clients that leave a handshake at any point take nobody's place, however many
// they are: not the silent, nor those who have said half of their first words or
// all of them.
func TestStalledHandshakesKeepNobodyOut(t *testing.T) {
	b := newBed(t, Listener{Protocol: "imap", TLS: protocol.TLSImplicit}, imap, func(cfg *Config, _ *guard.Config) {
		cfg.Limits.Handshakes = 2
	})
	hello := clientHello()
	stalled := 0
	for _, says := range [][]byte{nil, hello[:3], hello[:len(hello)/2], hello} {
		for range 3 {
			if _, err := b.dial("127.0.22.1").Write(says); err != nil {
				t.Fatal(err)
			}
			stalled++
		}
	}
	b.waitFor("all of them to be in", func() bool { return b.server.conns.count() == stalled })
	begun := time.Now()
	for range 3 {
		b.dial("127.0.22.2").startTLS().expect("* OK")
	}
	if n := b.server.conns.count(); n < stalled {
		t.Errorf("only %d of %d stalled ones are left after %v: they were waited for", n, stalled, time.Since(begun))
	}
	if n := len(b.server.current.handshakes); n != 0 {
		t.Errorf("%d places are taken while nothing is computed", n)
	}
}

// What bounds a client's first words bounds nothing that follows.
func TestHandshakeBoundsNothingAfterIt(t *testing.T) {
	got := make(chan int64, 1)
	b := newBed(t, Listener{Protocol: "imap", TLS: protocol.TLSImplicit}, func(s *session) {
		fmt.Fprint(s, "* OK Dovecot ready.\r\n")
		tag, _, _ := strings.Cut(s.line(), " ")
		fmt.Fprintf(s, "%s OK Logged in\r\n", tag)
		n, _ := io.CopyN(io.Discard, s, 4*maxHandshake)
		got <- n
	}, nil)
	c := b.dial("127.0.22.4").startTLS()
	c.expect("* OK")
	c.send("a LOGIN alice right")
	c.expect("a OK")
	if _, err := c.Write(make([]byte, 4*maxHandshake)); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != 4*maxHandshake {
		t.Errorf("%d bytes came through, want %d", n, 4*maxHandshake)
	}
}

// A client's first words are bounded.
func TestHandshakeIsBounded(t *testing.T) {
	b := newBed(t, Listener{Protocol: "imap", TLS: protocol.TLSImplicit}, imap, nil)
	c := b.dial("127.0.22.3")
	// Records of a ClientHello that says it has 60,000 bytes.
	record := append([]byte{22, 3, 1, 0x20, 0}, make([]byte, 0x2000)...)
	copy(record[5:], []byte{1, 0, 0xea, 0x60})
	_, _ = c.Write(bytes.Repeat(record, 3))
	if line := b.ended("127.0.22.3"); !strings.Contains(line, "more than 16384 bytes") {
		t.Errorf("its line is %s", line)
	}
}
