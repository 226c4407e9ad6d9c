package proxy

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

var smtpPlain = Listener{Protocol: "smtp", TLS: protocol.TLSNone}

// mx takes any message.
func mx(s *session) {
	fmt.Fprint(s, "220 mx.example.test ESMTP\r\n")
	for {
		switch line := s.line(); {
		case line == "":
			return
		case line == "DATA":
			fmt.Fprint(s, "354 go on\r\n")
			for l := s.line(); l != "." && l != ""; l = s.line() {
			}
			fmt.Fprint(s, "250 2.0.0 Ok\r\n")
		default:
			fmt.Fprint(s, "250 2.0.0 Ok\r\n")
		}
	}
}

// ended waits for the log line of a client's connection.
func (b *bed) ended(from string) string {
	b.t.Helper()
	var found string
	b.waitFor("the end of a connection from "+from, func() bool {
		for line := range strings.Lines(b.log.String()) {
			if strings.Contains(line, "msg=connection") && strings.Contains(line, "client="+from+":") {
				found = line
			}
		}
		return found != ""
	})
	return found
}

// With a delayed greeting, who talks first is told of once; who waits is
// remembered; a TLS handshake and a hang-up are no talk.
func TestGreetDelay(t *testing.T) {
	l := smtpPlain
	l.GreetDelay = guard.Duration(300 * time.Millisecond)
	b := newBed(t, l, mx, nil)
	for _, test := range []struct {
		from, says string
		early      bool
		knows      bool
	}{
		{"127.0.10.1", "EHLO x\r\n", true, false},
		{"127.0.10.2", "\x16\x03\x01\x02\x00", false, false},
		{"127.0.10.3", "", false, true},
		{"127.0.10.5", "QUIT\r\n", false, false}, // a monitor
	} {
		c := b.dial(test.from)
		fmt.Fprint(c, test.says)
		c.expect("220 ")
		c.Close()
		if got := strings.Contains(b.ended(test.from), string(protocol.EarlyTalk)); got != test.early {
			t.Errorf("%q: early talk %v, want %v", test.says, got, test.early)
		}
		if got := b.server.greeted.knows(netip.MustParseAddr(test.from), moment()); got != test.knows {
			t.Errorf("%q: remembered %v, want %v", test.says, got, test.knows)
		}
	}
	gone := b.dial("127.0.10.4")
	gone.Close()
	if line := b.ended("127.0.10.4"); strings.Contains(line, string(protocol.EarlyTalk)) {
		t.Errorf("who hangs up has talked: %s", line)
	}
	begun := time.Now()
	b.dial("127.0.10.3").expect("220 ")
	if took := time.Since(begun); took >= time.Duration(l.GreetDelay) {
		t.Errorf("who has waited before waits again: %v", took)
	}
}

// Who is banned for talking early is told so before the server is dialled.
func TestABanForTalkingEarlyNeedsNoServer(t *testing.T) {
	l := smtpPlain
	l.GreetDelay = guard.Duration(300 * time.Millisecond)
	b := newBed(t, l, mx, func(_ *Config, gc *guard.Config) {
		gc.Abuse = limit(t, "1/1d")
	})
	c := b.dial("127.0.10.6")
	c.send("EHLO x")
	c.expect("220 ")
	if got, want := c.rest(), string(protocol.Lookup("smtp").Say(protocol.SayBanned, "proxy.example.test")); got != want {
		t.Errorf("it was told %q, want %q", got, want)
	}
	if line := b.ended("127.0.10.6"); !strings.Contains(line, "end=banned") || strings.Contains(line, "server=") {
		t.Errorf("its line is %s", line)
	}
}

func TestGreetedIsBounded(t *testing.T) {
	var g greeted
	now := moment()
	a := netip.MustParseAddr("10.0.0.0")
	for range maxGreeted + 10 {
		g.add(a, now)
		last := a
		a = a.Next()
		if !g.knows(last, now) {
			t.Fatal("forgotten at once")
		}
	}
	if n := len(g.until); n != maxGreeted {
		t.Errorf("%d are remembered, want %d", n, maxGreeted)
	}
	if g.knows(a, now) || g.knows(netip.MustParseAddr("10.1.0.0"), now+int64(greetedFor)) {
		t.Error("known who was not greeted within a day")
	}
}

// What ordinary clients and monitors do is no event that scores: TLS where
// there is none, a look and away, errors behind a login.
func TestNoiseScoresNothing(t *testing.T) {
	b := newBed(t, smtpPlain, mx, func(_ *Config, g *guard.Config) { g.Abuse = limit(t, "1/1d") })
	visits := [][]string{nil, {"\x16\x03\x01\x02\x00\x01"}, {"EHLO monitor"}, {"EHLO monitor", "QUIT"}, {"NOOP"}}
	for range 20 {
		for _, lines := range visits {
			c := b.dial("127.0.11.1")
			for _, line := range lines {
				if line[0] != 0x16 { // a handshake comes before the greeting
					c.expect("2")
				}
				c.send(line)
			}
			c.Close()
		}
	}
	b.waitFor("the end of them all", func() bool { return b.server.conns.count() == 0 })
	if bans := b.guard.Bans(guard.BanFilter{}); len(bans) != 0 {
		t.Errorf("banned: %+v", bans)
	}
	if got := strings.Count(b.log.String(), string(protocol.LeftSilently)); got == 0 {
		t.Error("nobody was seen to leave silently")
	}

	in := newBed(t, imapPlain, imap, func(_ *Config, g *guard.Config) { g.Abuse = limit(t, "1/1d") })
	c := in.dial("127.0.11.2")
	c.expect("* OK")
	c.send("a LOGIN alice right")
	c.expect("a OK")
	for range 50 {
		_, _ = fmt.Fprint(c, "x NONSENSE\r\n\r\n") // the server hangs up some time
	}
	c.Close()
	in.waitFor("its end", func() bool { return in.server.conns.count() == 0 })
	if bans := in.guard.Bans(guard.BanFilter{}); len(bans) != 0 {
		t.Errorf("noise behind a login: banned: %+v", bans)
	}
}

// A handshake that is none is seen, and scores only by a rule of the
// operator's own.
func TestTLSFailureIsAnEvent(t *testing.T) {
	l := imapPlain
	l.TLS = protocol.TLSImplicit
	b := newBed(t, l, imap, func(_ *Config, g *guard.Config) {
		g.Rules = []guard.RuleConfig{{Name: "tls", Key: "address", Limit: limit(t, "3/10m"),
			Points: map[protocol.Kind]float64{protocol.TLSFailure: 1}}}
	})
	for range 3 {
		c := b.dial("127.0.12.1")
		fmt.Fprint(c, "a LOGIN alice right\r\n")
		c.rest()
	}
	b.waitFor("the ban", func() bool { return len(b.guard.Bans(guard.BanFilter{})) == 1 })
	c := tls.Client(b.dial("127.0.12.2").Conn, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Error(err)
	}
	c.Close()
	if line := b.ended("127.0.12.2"); strings.Contains(line, string(protocol.TLSFailure)) {
		t.Errorf("a good handshake: %s", line)
	}
}

// A message that comes at a byte now and then is ended, with an event of its
// own; one that is slow but moves is not.
func TestSlowDrip(t *testing.T) {
	b := newBed(t, smtpPlain, mx, func(cfg *Config, _ *guard.Config) {
		cfg.Timeouts.Command = guard.Duration(800 * time.Millisecond)
		cfg.Limits.MinDataRate = 1000
	})
	begin := func(from string) *client {
		c := b.dial(from)
		c.expect("220 ")
		for _, line := range []string{"EHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"} {
			c.send(line)
			c.line()
		}
		return c
	}
	every := func(c *client, n int, says string) {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for range n {
			<-tick.C
			if _, err := fmt.Fprint(c, says); err != nil {
				return
			}
		}
	}
	drip, slow := begin("127.0.13.1"), begin("127.0.13.2")
	done := make(chan struct{})
	go func() { every(drip, 200, "x"); close(done) }()
	every(slow, 40, strings.Repeat("y", 98)+"\r\n") // 2 s at 2000 B/s
	slow.send("", ".")
	slow.expect("250 ")
	if got := drip.rest(); !strings.HasPrefix(got, "421 ") {
		t.Errorf("the dripping client was told %q", got)
	}
	<-done
	if line := b.ended("127.0.13.1"); !strings.Contains(line, "end=slow-drip") || !strings.Contains(line, "slow-drip:1") {
		t.Errorf("the log says %s", line)
	}
}

// A server that has hung and does not even close does not keep the connections
// of clients that have gone.
func TestHungServerKeepsNoneThatHaveGone(t *testing.T) {
	release := make(chan struct{})
	b := newBed(t, imapPlain, func(s *session) {
		fmt.Fprint(s, "* OK ready.\r\n")
		<-release
	}, func(cfg *Config, _ *guard.Config) { cfg.Timeouts.Command = guard.Duration(300 * time.Millisecond) })
	defer close(release)
	for i, says := range []string{"a CAPABILITY\r\n", "a CAPABILITY\r\nb LOGIN alice wrong\r\n"} {
		gone := fmt.Sprintf("127.0.18.%d", i+1)
		c := b.dial(gone)
		c.expect("* OK")
		fmt.Fprint(c, says)
		waiting := b.dial("127.0.19.1")
		waiting.expect("* OK")
		fmt.Fprint(waiting, says)
		c.Close()
		if line := b.ended(gone); !strings.Contains(line, "end=client-gone") {
			t.Errorf("%q: the log says %s", says, line)
		}
		if b.server.conns.count() == 0 {
			t.Errorf("%q: the client that waits was cut", says)
		}
		waiting.Close()
		b.waitFor("the end of both", func() bool { return b.server.conns.count() == 0 })
	}
}

// An address, and its network, may connect so often; more is refused and not
// punished, and nobody else notices.
func TestConnectionRate(t *testing.T) {
	b := newBed(t, imapPlain, imap, func(cfg *Config, _ *guard.Config) {
		cfg.Limits.ConnectionRate = limit(t, "3/1h")
		cfg.Limits.NetworkRate = limit(t, "5/1h")
	})
	for i, test := range []struct {
		from string
		ok   bool
	}{
		{"127.0.14.1", true}, {"127.0.14.1", true}, {"127.0.14.1", true}, {"127.0.14.1", false},
		{"127.0.14.2", true}, {"127.0.14.3", true}, {"127.0.14.4", false}, {"127.0.15.1", true},
	} {
		got := ""
		if c, err := b.tryDial(test.from); err == nil {
			got = c.line()
		}
		if strings.HasPrefix(got, "* OK") != test.ok {
			t.Errorf("%d: %s got %q", i, test.from, got)
		}
	}
}

func TestPace(t *testing.T) {
	var p pace
	a := netip.MustParseAddr("192.0.2.1")
	three := limit(t, "3/1m")
	at := func(s int) int64 { return int64(time.Duration(s) * time.Second) }
	for _, test := range []struct {
		second int
		ok     bool
	}{{1, true}, {1, true}, {1, true}, {1, false}, {20, false}, {21, true}, {21, false}, {200, true}, {200, true}, {200, true}, {200, false}} {
		if got := p.takes(a, three, at(test.second)); got != test.ok {
			t.Errorf("at %d s: %v, want %v", test.second, got, test.ok)
		}
	}
	if !p.takes(a, guard.Limit{}, at(200)) {
		t.Error("refused without a limit")
	}
	for range maxPaced + 10 {
		a = a.Next()
		p.takes(a, three, at(300))
	}
	if n := len(p.full); n > maxPaced {
		t.Errorf("%d keys, want at most %d", n, maxPaced)
	}
}

// A balancer's own connection (LOCAL) is served and scores nothing.
func TestLocalHeaderScoresNothing(t *testing.T) {
	l := imapPlain
	l.TrustedProxies = []string{"127.0.16.1"}
	b := newBed(t, l, imap, func(cfg *Config, g *guard.Config) {
		cfg.Timeouts.FirstCommand = guard.Duration(50 * time.Millisecond)
		g.Loitering, g.Abuse = limit(t, "1/1d"), limit(t, "1/1d")
	})
	for _, says := range []string{"", "a NONSENSE\r\n", "GET / HTTP/1.1\r\n"} {
		c := b.dial("127.0.16.1")
		fmt.Fprint(c, "PROXY UNKNOWN\r\n")
		c.expect("* OK")
		fmt.Fprint(c, says)
		if says == "" {
			c.rest()
		}
		c.Close()
	}
	b.waitFor("their end", func() bool { return b.server.conns.count() == 0 })
	if bans := b.guard.Bans(guard.BanFilter{}); len(bans) != 0 {
		t.Errorf("banned: %+v", bans)
	}
}
