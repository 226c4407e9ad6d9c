package proxy

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// babbling is a server that talks without end once it has been asked something.
func babbling(s *session) { babble(s, func() {}) }

// babble tells when it begins.
func babble(s *session, begins func()) {
	fmt.Fprint(s, "* OK Dovecot ready.\r\n")
	if s.line() == "" {
		return
	}
	begins()
	fmt.Fprint(s, "a OK done\r\n")
	for text := strings.Repeat("x", 4000); ; {
		if _, err := fmt.Fprintf(s, "* OK %s\r\n", text); err != nil {
			return
		}
	}
}

// stall brings a connection that has been greeted to where its client, which
// takes nothing, is being written to.
func (b *bed) stall(client *client) *conn {
	b.t.Helper()
	if err := client.Conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		b.t.Fatal(err)
	}
	client.send("a CAPABILITY")
	var stalled *conn
	b.waitFor("the server's words to pile up", func() bool {
		for _, c := range b.server.conns.list(nil) {
			if w := c.client.writing.Load(); w != 0 && moment()-w > int64(50*time.Millisecond) {
				stalled = c
			}
		}
		return stalled != nil
	})
	return stalled
}

// stallAndAsk stalls a connection whose client has then said something that is
// ours to answer.
func (b *bed) stallAndAsk(from string) *conn {
	b.t.Helper()
	client := b.dial(from)
	client.expect("* OK")
	c := b.stall(client)
	client.send("b STARTTLS")
	b.waitFor("the answer to wait for its turn", func() bool {
		if c.mu.TryLock() {
			c.mu.Unlock()
			return false
		}
		return true
	})
	return c
}

// A client that takes nothing and has asked us something keeps its connection's
// lock taken. That holds up nobody else's timers.
func TestAStalledClientHoldsUpNobody(t *testing.T) {
	b := newBed(t, imapPlain, babbling, func(cfg *Config, _ *guard.Config) {
		cfg.Timeouts.FirstCommand = guard.Duration(500 * time.Millisecond)
	})
	c := b.stallAndAsk("127.0.21.1")
	c.moved.Store(moment() - int64(restAfter)) // it looks as if it were idle
	for range 3 {
		silent := b.dial("127.0.21.2")
		silent.expect("* OK")
		silent.expect("* BYE")
	}
}

// Such a connection ends when its time is up.
func TestAStalledClientIsEndedThoughItAsked(t *testing.T) {
	b := newBed(t, imapPlain, babbling, func(cfg *Config, _ *guard.Config) {
		cfg.Timeouts.Command = guard.Duration(time.Second)
	})
	b.stallAndAsk("127.0.21.3")
	b.waitFor("its end", func() bool { return b.server.conns.count() == 0 })
}

// A timer that finds a cut under way leaves it its time to end: the last word is
// not waited for for ever, and no other timer comes.
func TestATimerDoesNotProlongACut(t *testing.T) {
	b := newBed(t, imapPlain, babbling, nil)
	client := b.dial("127.0.21.5")
	client.expect("* OK")
	c := b.stall(client)
	if c.cut(protocol.SayBanned, "banned", gateReply) == nil {
		t.Fatal("it cannot be cut")
	}
	c.timeUp("timeout-command")
	b.waitFor("its end", func() bool { return b.server.conns.count() == 0 })
}

// Who sends a password and takes no answer has guessed, though the server's
// verdict is never read: the server sees no more of them than the limit allows.
func TestAStalledClientHasGuessed(t *testing.T) {
	var guesses atomic.Int64
	b := newBed(t, imapPlain, func(s *session) {
		var read sync.WaitGroup
		defer read.Wait()
		babble(s, func() {
			read.Go(func() {
				for line := s.line(); line != ""; line = s.line() {
					if strings.Contains(line, "LOGIN") {
						guesses.Add(1)
					}
				}
			})
		})
	}, func(cfg *Config, g *guard.Config) {
		cfg.Timeouts.Command = guard.Duration(time.Second)
		g.Authentication = limit(t, "2/1h")
	})
	for i := range 4 {
		client, err := b.tryDial("127.0.21.4")
		if err != nil || client.line() == "" {
			break // banned
		}
		b.stall(client)
		client.send(fmt.Sprintf("b LOGIN alice wrong-%d", i))
		b.waitFor("its end", func() bool { return b.server.conns.count() == 0 })
	}
	if n := guesses.Load(); n != 2 {
		t.Errorf("the server saw %d guesses, want the limit of 2", n)
	}
}
