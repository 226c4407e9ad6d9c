package proxy

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"mailreeve/protocol"
)

// A client that takes nothing any more is given up, unless a guess of its is
// still to be counted, or a message that it sent still to be answered. Nothing
// goes to the server from then on.
func TestAbandoned(t *testing.T) {
	for phase := protocol.Idle; phase <= protocol.LoggedIn; phase++ {
		for _, deaf := range []bool{false, true} {
			c := &conn{deaf: deaf}
			c.gate.follow(phase)
			want := deaf && phase != protocol.Judged && phase != protocol.Final
			if got := c.abandoned(); got != want {
				t.Errorf("deaf %v in phase %v: abandoned %v, want %v", deaf, phase, got, want)
			}
			if c.gate.closed() != want {
				t.Errorf("deaf %v in phase %v: the gate is closed: %v", deaf, phase, !want)
			}
		}
	}
}

// A server that talks on without end does not keep the connection of a client
// that has gone.
func TestServerTalksOn(t *testing.T) {
	b := newBed(t, imapPlain, func(s *session) {
		fmt.Fprint(s, "* OK Dovecot ready.\r\n")
		s.line()
		for line := "* OK " + strings.Repeat("x", 1000) + "\r\n"; ; {
			if _, err := s.Write([]byte(line)); err != nil {
				return
			}
		}
	}, nil)
	for range 20 {
		c := b.dial("127.0.41.1")
		c.expect("* OK")
		c.send("a CAPABILITY")
		c.expect("* OK x")
		_ = c.Conn.(*net.TCPConn).SetLinger(0) // a reset, which a write may meet first
		c.Close()
	}
	b.waitFor("the server's connections to end", func() bool { return b.fake.open.Load() == 0 })
}
