package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

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

// only gives the one connection that is open.
func (b *bed) only() *conn {
	b.t.Helper()
	var list []*conn
	b.waitFor("one connection", func() bool {
		list = b.server.conns.list(nil)
		return len(list) == 1
	})
	return list[0]
}

// looksIdle makes a connection look as if nothing had moved for long.
func (c *conn) looksIdle() { c.moved.Store(moment() - int64(restAfter)) }

// A refusal that is held back for long lets the connection rest. What has to be
// said to the server afterwards is answered all the same.
func TestRestEndsWhenTheServerIsNeeded(t *testing.T) {
	b := newBed(t, imapPlain, func(s *session) {
		fmt.Fprint(s, "* OK Dovecot ready.\r\n")
		for line := s.line(); line != ""; line = s.line() {
			tag, _, _ := strings.Cut(line, " ")
			fmt.Fprint(s, "+ \r\n")
			if s.line() == "*" {
				fmt.Fprintf(s, "%s BAD aborted\r\n", tag)
			} else {
				fmt.Fprintf(s, "%s NO [AUTHENTICATIONFAILED] wrong\r\n", tag)
			}
		}
	}, func(_ *Config, g *guard.Config) { g.Tarpit = guard.Duration(time.Second) })
	client := b.dial("127.0.42.2")
	client.expect("* OK")
	for _, tag := range []string{"a", "b"} { // the second one is ours to refuse
		client.send(tag + " AUTHENTICATE PLAIN")
		client.expect("+ ")
		client.send("AGFsaWNlAHdyb25n")
		c := b.only()
		b.waitFor("the rest", func() bool {
			c.looksIdle()
			return c.resting.Load()
		})
		client.expect(tag + " NO")
	}
}

// A connection on which a side takes nothing is not idle: what the other one
// says meanwhile passes.
func TestNoRestWhileSomethingIsBeingWritten(t *testing.T) {
	say := make(chan bool)
	b := newBed(t, imapPlain, func(s *session) {
		fmt.Fprint(s, "* OK Dovecot ready.\r\n")
		tag, _, _ := strings.Cut(s.line(), " ")
		fmt.Fprintf(s, "%s OK Logged in\r\n", tag)
		<-say
		fmt.Fprint(s, "* 1 EXISTS\r\n")
		<-say
	}, nil)
	client := b.dial("127.0.42.3")
	defer close(say)
	client.expect("* OK")
	client.send("a LOGIN alice right")
	client.expect("a OK")
	go func() {
		for text := strings.Repeat("x", 1<<16); ; {
			if _, err := fmt.Fprint(client, text); err != nil {
				return
			}
		}
	}()
	c := b.only()
	c.mu.Lock()
	server := c.server
	c.mu.Unlock()
	b.waitFor("the client's words to pile up", func() bool {
		w := server.writing.Load()
		return w != 0 && moment()-w > int64(100*time.Millisecond)
	})
	c.looksIdle()
	c.rest()
	say <- true
	client.expect("* 1 EXISTS")
	client.Close()
}

// A connection that cannot be parked (the kernel bounds what may be watched) has
// no place, or it could never park again, and nobody would wake it.
func TestNoPlaceWhereParkingFails(t *testing.T) {
	l, err := newLot()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	client, _ := quickPair(t)
	c := &conn{client: newEnd(client)}
	epoll := l.epoll
	l.epoll = -1
	err = l.park(c)
	l.epoll = epoll
	if err == nil || c.place != 0 || len(l.cars) != 0 {
		t.Errorf("%v; it has place %d, the lot %d cars", err, c.place, len(l.cars))
	}
}

// What a connection holds all its life is as large as the sizes that Go hands
// memory out in: one byte more costs 64 or 16, for each of thousands.
func TestSizeOfConnection(t *testing.T) {
	for _, of := range []struct {
		what        string
		size, class uintptr
	}{
		{"a connection", unsafe.Sizeof(conn{}), 576},
		{"its end", unsafe.Sizeof(end{}), 80},
		{"its socket", unsafe.Sizeof(quickConn{}), 32},
		{"its socket below TLS", unsafe.Sizeof(shaker{}), 16},
	} {
		if of.size > of.class {
			t.Errorf("%s has %d bytes, more than %d", of.what, of.size, of.class)
		}
	}
}
