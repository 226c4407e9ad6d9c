package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// Clients that say nothing, or drip, are ended with a word and counted.
func TestLoiterersAreEndedAndCounted(t *testing.T) {
	b := newBed(t, imapPlain, imap, func(cfg *Config, g *guard.Config) {
		cfg.Timeouts.FirstCommand = guard.Duration(100 * time.Millisecond)
		cfg.Timeouts.Login = guard.Duration(500 * time.Millisecond)
		g.Loitering = limit(t, "3/1h")
	})
	silent := b.dial("127.0.2.1")
	silent.expect("* OK")
	if got := silent.rest(); !strings.HasPrefix(got, "* BYE") {
		t.Errorf("the silent client was told %q", got)
	}
	drip := b.dial("127.0.2.1")
	drip.expect("* OK")
	fmt.Fprint(drip, "a LOG")
	if got := drip.rest(); !strings.HasPrefix(got, "* BYE") {
		t.Errorf("the dripping client was told %q", got)
	}
	// NOOPs do not buy time without end.
	chatty := b.dial("127.0.2.1")
	chatty.expect("* OK")
	chatty.send("a NOOP")
	if got := chatty.rest(); !strings.Contains(got, "* BYE") {
		t.Errorf("the chatty client was told %q", got)
	}
	b.waitFor("the ban", func() bool { return len(b.guard.Bans(guard.BanFilter{})) == 1 })
}

// brief makes the times short in which a client must say something.
func brief(t *Timeouts) {
	t.FirstCommand = guard.Duration(50 * time.Millisecond)
	t.Login = guard.Duration(50 * time.Millisecond)
	t.Command = guard.Duration(50 * time.Millisecond)
}

// swept waits until the sweeper has been round, which the end of a client shows
// that says nothing.
func (b *bed) swept(from string) {
	b.t.Helper()
	c := b.dial(from)
	c.expect("* OK")
	c.rest()
}

// late greets, and says when it is released what becomes of the login that it
// has read.
func late(s *session, release <-chan struct{}, judgement string) {
	fmt.Fprint(s, "* OK Dovecot ready.\r\n")
	tag, _, _ := strings.Cut(s.line(), " ")
	<-release
	fmt.Fprintf(s, "%s %s\r\n", tag, judgement)
}

// drains begins a shutdown, and tells how it went.
func (b *bed) drains() <-chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done <- b.server.Shutdown(ctx)
	}()
	return done
}

// While the server owes a reply no timer of ours runs, nor on a client that is
// logged in and idles.
func TestNoTimerRunsWhileTheServerOwes(t *testing.T) {
	release := make(chan struct{})
	b := newBed(t, imapPlain, func(s *session) {
		late(s, release, "OK Logged in")
		s.line()
		fmt.Fprint(s, "+ idling\r\n")
		s.line()
	}, func(cfg *Config, g *guard.Config) {
		brief(&cfg.Timeouts)
		g.Loitering = limit(t, "1/1h")
	})
	c := b.dial("127.0.2.2")
	c.expect("* OK")
	c.send("a LOGIN alice right")
	b.swept("127.0.2.3")
	close(release)
	c.expect("a OK")
	c.send("b IDLE")
	c.expect("+ idling")
	b.swept("127.0.2.4")
	c.send("DONE")
	if b.guard.Admit(&guard.Origin{Addr: mustAddr("127.0.2.2"), Scope: "auth", Listener: "test"}) != protocol.Pass {
		t.Error("the client that waited has been banned")
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	b := newBed(t, imapPlain, imap, func(cfg *Config, _ *guard.Config) {
		cfg.Limits.ConnectionsPerAddress = 2
		cfg.Limits.Connections = 3
	})
	for _, test := range []struct {
		from string
		ok   bool
	}{{"127.0.2.5", true}, {"127.0.2.5", true}, {"127.0.2.5", false}, {"127.0.2.6", true}, {"127.0.2.7", false}} {
		got := ""
		if c, err := b.tryDial(test.from); err == nil { // a reset may be as early as that
			got = c.line()
		}
		if strings.HasPrefix(got, "* OK") != test.ok {
			t.Errorf("%s: got %q", test.from, got)
		}
	}
}

// A drain says goodbye where it is the client's turn, and lets a reply that is
// owed arrive.
func TestShutdownDrains(t *testing.T) {
	release := make(chan struct{})
	b := newBed(t, imapPlain, func(s *session) {
		late(s, release, "NO [AUTHENTICATIONFAILED] no")
		s.line()
	}, nil)
	idle := b.dial("127.0.2.8")
	idle.expect("* OK")
	waiting := b.dial("127.0.2.9")
	waiting.expect("* OK")
	waiting.send("a LOGIN alice wrong")
	b.waitFor("the server", func() bool { return b.fake.sessions.Load() == 1 })
	addr := b.addr()
	done := b.drains()
	if got := idle.rest(); !strings.HasPrefix(got, "* BYE") {
		t.Errorf("the idle client was told %q", got)
	}
	close(release)
	waiting.expect("a NO")
	if got := waiting.rest(); !strings.HasPrefix(got, "* BYE") {
		t.Errorf("after its reply the client was told %q", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("it still listens")
	}
}

// A drain does not wait for clients in IDLE, but lets a transfer finish.
func TestShutdownCutsIdlersAndLetsTransfersFinish(t *testing.T) {
	const lines = 15
	transfer := make(chan struct{})
	b := newBed(t, imapPlain, func(s *session) {
		fmt.Fprint(s, "* OK Dovecot ready.\r\n")
		tag, _, _ := strings.Cut(s.line(), " ")
		fmt.Fprintf(s, "%s OK Logged in\r\n", tag)
		if strings.HasSuffix(s.line(), " IDLE") {
			fmt.Fprint(s, "+ idling\r\n")
			s.line()
			return
		}
		<-transfer
		pace := time.NewTicker(quietForDrain / 10) // in all longer than an idler has
		defer pace.Stop()
		for range lines {
			<-pace.C
			fmt.Fprint(s, "* a line\r\n")
		}
		s.line()
	}, nil)
	login := func(from, then string) *client {
		c := b.dial(from)
		c.expect("* OK")
		c.send("a LOGIN alice right")
		c.expect("a OK")
		c.send(then)
		return c
	}
	idler := login("127.0.2.20", "b IDLE")
	idler.expect("+ idling")
	fetching := login("127.0.2.21", "b FETCH")
	close(transfer)
	done := b.drains()
	if got := idler.rest(); got != "" {
		t.Errorf("the idler was told %q; what is blind may be compressed", got)
	}
	if got := strings.Count(fetching.rest(), "* a line"); got != lines {
		t.Errorf("the transfer was cut after %d of %d lines", got, lines)
	}
	if err := <-done; err != nil {
		t.Errorf("the drain ran into its limit: %v", err)
	}
}

// A reload that fails changes nothing; one that succeeds keeps connections and
// sockets.
func TestReload(t *testing.T) {
	b := newBed(t, imapPlain, imap, nil)
	cfg := b.server.current.cfg
	c := b.dial("127.0.2.10")
	c.expect("* OK")
	c.send("a LOGIN alice right")
	c.expect("a OK")

	bad := cfg
	bad.Listeners = append([]Listener(nil), cfg.Listeners...)
	bad.Listeners = append(bad.Listeners, Listener{Name: "two", Address: "127.0.0.1:0", Protocol: "gopher"})
	var where *ConfigError
	if err := b.server.Reload(bad); !errors.As(err, &where) || where.Key != "protocol" || where.Index != 1 {
		t.Fatalf("got %v", err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	bad.Listeners[1] = Listener{Name: "two", Address: taken.Addr().String(), Protocol: "imap", TLS: "none", Upstream: "fake"}
	if err := b.server.Reload(bad); !errors.As(err, &where) || where.Key != "address" {
		t.Fatalf("got %v", err)
	}
	before := b.addr()
	good := cfg
	good.Hostname = "other.example.test"
	if err := b.server.Reload(good); err != nil {
		t.Fatal(err)
	}
	if b.addr() != before {
		t.Errorf("the socket has moved from %s to %s", before, b.addr())
	}
	c.send("b NOOP")
	c.expect("b OK")
	b.dial("127.0.2.11").expect("* OK")
}

// Who waits for the guard, because others' reservations fill the limit, waits
// for us: no timer of the client's runs.
func TestNoTimerRunsWhileTheGuardIsAsked(t *testing.T) {
	release := make(chan struct{})
	b := newBed(t, imapPlain, func(s *session) {
		late(s, release, "OK Logged in")
		s.line()
	}, func(cfg *Config, g *guard.Config) {
		brief(&cfg.Timeouts)
		g.Authentication = limit(t, "1/1h")
	})
	first, second := b.dial("127.0.2.14"), b.dial("127.0.2.14")
	for i, c := range []*client{first, second} {
		c.expect("* OK")
		c.send(fmt.Sprintf("a LOGIN user%d right", i))
	}
	b.swept("127.0.2.15")
	close(release)
	first.expect("a OK")
	second.expect("a OK")
}

// Who stops before TLS, or in the middle of the handshake, has loitered too.
func TestStoppingBeforeTLSIsLoitering(t *testing.T) {
	b := newBed(t, Listener{Protocol: "imap", TLS: protocol.TLSImplicit}, imap, func(cfg *Config, g *guard.Config) {
		cfg.Timeouts.Handshake = guard.Duration(100 * time.Millisecond)
		g.Loitering = limit(t, "2/1h")
	})
	silent := b.dial("127.0.2.12")
	if got := silent.rest(); got != "" {
		t.Errorf("the silent client was told %q", got)
	}
	half := b.dial("127.0.2.12")
	fmt.Fprint(half, "\x16\x03\x01")
	half.rest()
	b.waitFor("the ban", func() bool { return len(b.guard.Bans(guard.BanFilter{})) == 1 })
}

// A server that says goodbye instead of judging has not judged, whatever the
// client does then.
func TestGoodbyeInsteadOfAVerdictScoresNothing(t *testing.T) {
	gone := make(chan struct{})
	b := newBed(t, imapPlain, func(s *session) {
		fmt.Fprint(s, "* OK Dovecot ready.\r\n")
		s.line()
		fmt.Fprint(s, "* BYE [UNAVAILABLE] Internal login failure.\r\n")
		<-gone
	}, func(_ *Config, g *guard.Config) { g.Authentication = limit(t, "1/1h") })
	for i := range 3 {
		c := b.dial("127.0.2.13")
		c.expect("* OK")
		c.send(fmt.Sprintf("a LOGIN alice guess%d", i))
		c.expect("* BYE")
		c.Close()
		gone <- struct{}{}
	}
	b.waitFor("the connections to end", func() bool { return b.server.conns.count() == 0 })
	if bans := b.guard.Bans(guard.BanFilter{}); len(bans) != 0 {
		t.Errorf("banned: %+v", bans)
	}
}
