package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailreeve/protocol"
)

// received gives how many segments a connection has received in all, and how
// many of them with data.
func received(t *testing.T, c net.Conn) (all, data uint32) {
	t.Helper()
	rc, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var infoErr error
	if err := rc.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if infoErr = err; err == nil {
			all, data = info.Segs_in, info.Data_segs_in
		}
	}); err != nil {
		t.Fatal(err)
	}
	if infoErr != nil {
		t.Fatal(infoErr)
	}
	return all, data
}

// What more is to follow is gathered; what it follows upon brings all of it.
func TestWriteMoreGathers(t *testing.T) {
	q, far := quickPair(t)
	part := bytes.Repeat([]byte("x"), 100)
	const parts = 100
	for range parts {
		if n, err := q.WriteMore(part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if n, err := q.Write([]byte("end")); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	got := make([]byte, parts*len(part)+3)
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(got, []byte("xxend")) {
		t.Errorf("got …%q", got[len(got)-5:])
	}
	if _, n := received(t, far); n > parts/4 {
		t.Errorf("%d writes made %d segments", parts+1, n)
	}
}

// What is kept back comes though nothing follows.
func TestWriteMoreKeepsNothingForGood(t *testing.T) {
	q, far := quickPair(t)
	if _, err := q.WriteMore([]byte("alone")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(far, got); err != nil || string(got) != "alone" {
		t.Errorf("got %q, %v", got, err)
	}
}

// The middle of a message goes to the server in few segments, however small the
// client's; commands, and the end of the message, go at once.
func TestMiddleOfAMessageIsGathered(t *testing.T) {
	came := make(chan uint32, 1)
	b := newBed(t, smtpPlain, func(s *session) {
		fmt.Fprint(s, "220 mx.example.test ESMTP\r\n")
		for line := s.line(); line != ""; line = s.line() {
			if line != "DATA" {
				fmt.Fprint(s, "250 2.0.0 Ok\r\n")
				continue
			}
			_, before := received(s.t, s.Conn)
			fmt.Fprint(s, "354 go on\r\n")
			for s.line() != "." {
			}
			_, after := received(s.t, s.Conn)
			came <- after - before
			fmt.Fprint(s, "250 2.0.0 Ok\r\n")
		}
	}, nil)
	client := b.dial("127.0.22.1")
	client.expect("220 ")
	for _, line := range []string{"EHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"} {
		client.send(line)
		client.line()
	}
	c := b.server.conns.list(nil)[0]
	const parts = 100
	began := time.Now()
	for range parts {
		before := c.bytesIn.Load()
		client.send("one line")
		b.waitFor("the relay to read it", func() bool { return c.bytesIn.Load() > before })
	}
	client.send(".")
	client.expect("250 ")
	late := uint32(time.Since(began) / (100 * time.Millisecond)) // what the kernel lets go by itself
	if n := <-came; n > parts/4+late {
		t.Errorf("%d lines came in %d segments", parts, n)
	}
}

// The last word, TLS's goodbye and the end of the stream are one segment: the
// client is woken once.
func TestGoodbyeIsOneSegment(t *testing.T) {
	imaps := Listener{Protocol: "imap", TLS: protocol.TLSImplicit}
	for name, test := range map[string]struct {
		listener Listener
		last     string
		end      func(*conn)
	}{
		"last word in clear": {imapPlain, "* BYE", func(c *conn) { <-c.cut(protocol.SayShutdown, "test", gateOpen) }},
		"last word":          {imaps, "* BYE", func(c *conn) { <-c.cut(protocol.SayShutdown, "test", gateOpen) }},
		"end":                {imaps, "", func(c *conn) { c.endGently("test") }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, test.listener, imap, nil)
			client := b.dial("127.0.23.1")
			tcp := client.Conn
			if test.listener.TLS == protocol.TLSImplicit {
				client = client.startTLS()
			}
			client.expect("* OK")
			c := b.server.conns.list(nil)[0]
			before, _ := received(t, tcp)
			test.end(c)
			if got := client.rest(); !strings.HasPrefix(got, test.last) {
				t.Errorf("got %q, want %q", got, test.last)
			}
			if after, _ := received(t, tcp); after-before > 1 {
				t.Errorf("%d segments said goodbye", after-before)
			}
		})
	}
}
