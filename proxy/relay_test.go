package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

func contextNow() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 100*time.Millisecond)
}

// Whoever says nothing costs the server nothing.
func TestSilentClientsAreNotDialledFor(t *testing.T) {
	b := newBed(t, imapPlain, imap, nil)
	for i := range 50 {
		c := b.dial(fmt.Sprintf("127.0.1.%d", i+1))
		c.expect("* OK")
	}
	if n := b.fake.sessions.Load(); n != 0 {
		t.Errorf("the server has %d connections, want 0", n)
	}
}

func TestLoginIsRelayedAndBlindAfterwards(t *testing.T) {
	b := newBed(t, imapPlain, imap, nil)
	c := b.dial("127.0.0.2")
	c.expect("* OK")
	c.send("a LOGIN alice wrong")
	c.expect("a NO [AUTHENTICATIONFAILED]")
	c.send("b LOGIN alice right")
	c.expect("b OK")
	c.send("c ANYTHING whatever")
	c.expect("c OK ANYTHING done")
	c.send("d LOGOUT")
	c.expect("* BYE")
	c.expect("d OK")
	if rest := c.rest(); rest != "" {
		t.Errorf("after LOGOUT: %q", rest)
	}
	b.waitFor("the log line", func() bool { return strings.Contains(b.log.String(), "login=alice") })
	if strings.Contains(b.log.String(), "wrong") || strings.Contains(b.log.String(), "right") {
		t.Error("a password is in the log")
	}
}

// A client that sends its guess and goes has still guessed; the server's
// answer, though late, is counted.
func TestHangUpAfterCredentialIsCounted(t *testing.T) {
	release := make(chan struct{})
	b := newBed(t, imapPlain, func(s *session) {
		fmt.Fprint(s, "* OK Dovecot ready.\r\n")
		for {
			line := s.line()
			if line == "" {
				return
			}
			<-release
			tag, _, _ := strings.Cut(line, " ")
			fmt.Fprintf(s, "%s NO [AUTHENTICATIONFAILED] no\r\n", tag)
		}
	}, func(_ *Config, g *guard.Config) { g.Authentication = limit(t, "3/1h") })
	for i := range 3 {
		c := b.dial("127.0.0.3")
		c.expect("* OK")
		c.send(fmt.Sprintf("a LOGIN alice wrong%d", i))
		n := int64(i + 1)
		b.waitFor("the credential to reach the server", func() bool { return b.fake.sessions.Load() == n })
		c.Close()
	}
	close(release)
	b.waitFor("the ban", func() bool { return len(b.guard.Bans(guard.BanFilter{})) == 1 })
}

// points is what an address has in its strongest score.
func (b *bed) points(addr string) float64 {
	w, err := b.guard.Why(addr)
	if err != nil {
		b.t.Fatal(err)
	}
	most := 0.0
	for _, s := range w.Scores {
		most = max(most, s.Points)
	}
	return most
}

// The deciding reply is not released before the other connections of the
// address have been cut; an authenticated one stays.
func TestBanCutsTheUnauthenticated(t *testing.T) {
	b := newBed(t, imapPlain, imap, func(_ *Config, g *guard.Config) { g.Authentication = limit(t, "2/1h") })
	good := b.dial("127.0.0.4")
	good.expect("* OK")
	good.send("a LOGIN alice right")
	good.expect("a OK")
	idle := b.dial("127.0.0.4")
	idle.expect("* OK")
	bad := b.dial("127.0.0.4")
	bad.expect("* OK")
	bad.send("a LOGIN bob wrong1")
	bad.expect("a NO")
	bad.send("b LOGIN carol wrong2")
	if got := bad.rest(); !strings.HasPrefix(got, "* BYE") {
		t.Errorf("the deciding connection was told %q, want a BYE and no answer", got)
	}
	if got := idle.rest(); !strings.HasPrefix(got, "* BYE") {
		t.Errorf("the idle connection was told %q, want a BYE", got)
	}
	good.send("c NOOP")
	good.expect("c OK")
	b.waitFor("the guesses in the connection's log line", func() bool {
		return strings.Contains(b.log.String(), "events=map[auth-failure:2]")
	})
}

// Both directions end on their own: what the server still has to say after the
// client's last byte arrives.
func TestHalfCloseIsKept(t *testing.T) {
	b := newBed(t, imapPlain, func(s *session) {
		fmt.Fprint(s, "* OK Dovecot ready.\r\n")
		tag, _, _ := strings.Cut(s.line(), " ")
		fmt.Fprintf(s, "%s OK Logged in\r\n", tag)
		if _, err := io.Copy(io.Discard, s.r); err == nil {
			fmt.Fprint(s, "after the end")
		}
	}, nil)
	c := b.dial("127.0.0.5")
	c.expect("* OK")
	c.send("a LOGIN alice right")
	c.expect("a OK")
	c.send("some", "more")
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := c.rest(); got != "after the end" {
		t.Errorf("got %q", got)
	}
}

// The same before a login, where lines are looked at: the answer to what the
// client asked last arrives though the client has closed its side.
func TestHalfCloseIsKeptInADialogue(t *testing.T) {
	b := newBed(t, smtpPlain, func(s *session) {
		fmt.Fprint(s, "220 mx.example.test ESMTP\r\n")
		for line := s.line(); line != ""; line = s.line() {
			if !strings.HasPrefix(line, "MAIL") {
				fmt.Fprint(s, "250 mx.example.test\r\n")
			}
		}
		fmt.Fprint(s, "250 after the end\r\n")
	}, nil)
	c := b.dial("127.0.0.20")
	c.expect("220 ")
	c.send("EHLO x")
	c.expect("250 ")
	c.send("MAIL FROM:<a@example.test>")
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.expect("250 after the end")
}

// Not so while a password is with the server: that the client has left is not
// passed on, so that the server has no reason to leave the guess unjudged.
func TestLeavingIsNotPassedOnWhileAPasswordIsJudged(t *testing.T) {
	submission := Listener{Protocol: "submission", TLS: protocol.TLSNone, PlaintextAuth: PlaintextYes}
	pop3 := Listener{Protocol: "pop3", TLS: protocol.TLSNone, PlaintextAuth: PlaintextYes}
	for _, c := range []struct {
		listener         Listener
		greeting, before string // what the server says, and answers before the guess
		greets, opening  string // what the client hears, and says before the guess
		guess, wrong     string
	}{
		{imapPlain, "* OK Dovecot ready.", "", "* OK", "", "a LOGIN alice wrong", "a NO [AUTHENTICATIONFAILED] Authentication failed."},
		{pop3, "+OK Dovecot ready.", "+OK", "+OK", "USER alice", "PASS wrong", "-ERR [AUTH] Authentication failed."},
		{submission, "220 mx.example.test ESMTP", "250 AUTH PLAIN", "220", "EHLO x", "AUTH PLAIN AGFsaWNlAHdyb25n", "535 5.7.8 Error: authentication failed"},
	} {
		t.Run(c.listener.Protocol, func(t *testing.T) {
			asked, left, heard := make(chan bool), make(chan bool), make(chan error, 1)
			b := newBed(t, c.listener, func(s *session) {
				fmt.Fprint(s, c.greeting+"\r\n")
				if c.opening != "" {
					s.line()
					fmt.Fprint(s, c.before+"\r\n")
				}
				s.line()
				asked <- true
				<-left
				_ = s.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
				_, err := s.r.ReadByte()
				heard <- err
				fmt.Fprint(s, c.wrong+"\r\n")
			}, func(_ *Config, g *guard.Config) { g.Authentication = limit(t, "1/1h") })
			client := b.dial("127.0.0.21")
			client.expect(c.greets)
			if c.opening != "" {
				client.send(c.opening)
				client.line()
			}
			client.send(c.guess)
			<-asked
			client.Close()
			close(left)
			if err := <-heard; !isTimeout(err) {
				t.Errorf("the server heard %v, want nothing yet", err)
			}
			b.waitFor("the ban", func() bool { return len(b.guard.Bans(guard.BanFilter{})) == 1 })
		})
	}
}

// A connection that fell idle has no goroutine, and wakes for either side.
func TestParkedConnectionWakes(t *testing.T) {
	say := make(chan string)
	b := newBed(t, Listener{Protocol: "imap", TLS: protocol.TLSImplicit}, func(s *session) {
		fmt.Fprint(s, "* OK Dovecot ready.\r\n")
		tag, _, _ := strings.Cut(s.line(), " ")
		fmt.Fprintf(s, "%s OK Logged in\r\n", tag)
		gone := make(chan struct{})
		go func() {
			_, _ = io.Copy(s.Conn, s.r)
			close(gone)
		}()
		for {
			select {
			case text := <-say:
				fmt.Fprint(s, text)
			case <-gone:
				return
			}
		}
	}, nil)
	plain := b.dial("127.0.0.6")
	c := plain.startTLS()
	c.expect("* OK")
	b.waitParked(1)
	c.send("a LOGIN alice right")
	c.expect("a OK")
	for i := range 3 {
		b.waitParked(1)
		say <- fmt.Sprintf("* %d EXISTS\r\n", i)
		c.expect(fmt.Sprintf("* %d EXISTS", i))
		b.waitParked(1)
		c.send(fmt.Sprintf("echo %d", i))
		c.expect(fmt.Sprintf("echo %d", i))
	}
	b.waitParked(1)
	c.Close()
	b.waitFor("the parked connection to end with its client", func() bool { return b.server.conns.count() == 0 })
}

// waitParked makes connections look idle for long, and waits until n of them
// have parked.
func (b *bed) waitParked(n int) {
	b.t.Helper()
	b.waitFor("connections to park", func() bool {
		for _, c := range b.server.conns.list(nil) {
			c.moved.Store(moment() - int64(restAfter))
		}
		b.server.lot.mu.Lock()
		defer b.server.lot.mu.Unlock()
		return len(b.server.lot.cars) == n
	})
}

// A dead server is the protocol's temporary error and nobody's fault.
func TestNoServerScoresNothing(t *testing.T) {
	b := newBed(t, imapPlain, imap, func(cfg *Config, g *guard.Config) {
		cfg.Upstreams[0].Addresses = []string{"127.0.0.1:1", "127.0.0.1:2"}
		g.Authentication = limit(t, "1/1h")
	})
	for range 3 {
		c := b.dial("127.0.0.10")
		c.expect("* OK")
		c.send("a LOGIN alice wrong")
		if got := c.rest(); !strings.Contains(got, "UNAVAILABLE") {
			t.Errorf("got %q, want UNAVAILABLE", got)
		}
	}
	if bans := b.guard.Bans(guard.BanFilter{}); len(bans) != 0 {
		t.Errorf("banned: %+v", bans)
	}
}

// A second address takes over when the first does not answer.
func TestFailover(t *testing.T) {
	b := newBed(t, imapPlain, imap, func(cfg *Config, _ *guard.Config) {
		cfg.Upstreams[0].Addresses = append([]string{"127.0.0.1:1"}, cfg.Upstreams[0].Addresses...)
	})
	c := b.dial("127.0.0.11")
	c.expect("* OK")
	c.send("a LOGIN alice right")
	c.expect("a OK")
}

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

func limit(t *testing.T, s string) guard.Limit {
	t.Helper()
	var l guard.Limit
	if err := l.UnmarshalText([]byte(s)); err != nil {
		t.Fatal(err)
	}
	return l
}
