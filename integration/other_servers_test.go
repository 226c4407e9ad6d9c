package integration

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// counting has every rule of logins and recipients on, far from its limit, so
// that points can be read.
var counting = map[string]any{"authentication": "1000/1h", "invalid-rcpt": "1000/1d"}

// before is mailreeve in front of one server, without TLS. proxy is "none" for
// a server that does not know the PROXY protocol.
func before(t *testing.T, protocol string, port int, proxy string) *testbed.Proxy {
	t.Helper()
	cfg := testbed.InFront(protocol, "none", port, counting)
	cfg.Upstreams[0].ProxyProtocol = proxy
	cfg.Listeners[0].PlaintextAuth = "yes"
	return bed.NewProxy(t, cfg)
}

// loginsAreJudged tries what a server can answer to a login, and reads the
// points. away, called with outage locked, takes the server's passwords away;
// what it then says must not count, unless it says what it says to a wrong
// password. It is nil for a server that cannot be without.
func loginsAreJudged(t *testing.T, p *testbed.Proxy, network string, outage *sync.RWMutex, away func() (bringBack func()), lies bool) {
	t.Helper()
	outage.RLock()
	listener := p.Config.Listeners[0].Name
	try := func(from, login, password string, accepted bool, points float64) {
		t.Helper()
		g := p.Guess(listener, from, login, password)
		answer, text, conn := g.Try()
		if conn != nil {
			conn.Close()
		}
		if (answer == testbed.Accepted) != accepted || answer == testbed.Unanswered {
			t.Errorf("%s: %s from %s is answered %v: %q", listener, login, from, answer, text)
		}
		if got := p.Points(from); got != points {
			t.Errorf("%s: after %q %s has %v points, want %v", listener, text, from, got, points)
		}
	}
	secret := func(n int) string { return bed.Secrets.New(fmt.Sprintf("other-%s-%d", listener, n)) }
	owner, guesser, unlucky := network+".1", network+".2", network+".3"
	try(owner, bed.Alice.Login, bed.Alice.Password, true, 0)
	try(guesser, bed.Alice.Login, secret(1), false, 1)
	try(guesser, bed.Alice.Login, secret(1), false, 1)
	try(guesser, "nobody@example.test", secret(2), false, 2)

	outage.RUnlock()
	if away == nil {
		return
	}

	outage.Lock()
	defer outage.Unlock()
	bringBack := away()
	want := 0.0
	if lies {
		want = 1
	}
	try(unlucky, bed.Alice.Login, bed.Alice.Password, false, want)
	bringBack()
	if lies {
		unlucky = "127.79.0.1" // in the other network the answer is remembered
	}
	try(unlucky, bed.Alice.Login, bed.Alice.Password, true, 0)
}

// recipientsAreJudged sends one RCPT and reads the event that comes of it.
func recipientsAreJudged(t *testing.T, p *testbed.Proxy, from string, kinds map[string]string) {
	t.Helper()
	listener := p.Config.Listeners[0].Name
	conn := mustOpen(t, p.Guess(listener, from, "", ""))
	if reply, err := conn.SMTP("MAIL FROM:<%s>", envelopeFrom); err != nil || reply[0] != '2' {
		t.Fatalf("MAIL: %q, %v", reply, err)
	}
	events := func(kind string) float64 {
		return p.Metric(testbed.MetricEvents, testbed.Labels{"kind": kind})
	}
	for rcpt, kind := range kinds {
		invalid, relay := events("invalid-rcpt"), events("relay-denied")
		switch kind {
		case "invalid-rcpt":
			invalid++
		case "relay-denied":
			relay++
		}
		reply, err := conn.SMTP("RCPT TO:<%s>", rcpt)
		if err != nil || (kind != "") && reply[0] != '5' {
			t.Errorf("RCPT TO:<%s>: %q, %v", rcpt, reply, err)
		}
		if gotInvalid, gotRelay := events("invalid-rcpt"), events("relay-denied"); gotInvalid != invalid || gotRelay != relay {
			t.Errorf("after %q: %v invalid-rcpt and %v relay-denied, want %v and %v", reply, gotInvalid, gotRelay, invalid, relay)
		}
	}
}

// What a real Exim says is understood, and it knows the client by the header.
func TestExim(t *testing.T) {
	t.Parallel()
	exim := bed.NewExim(t)
	submission := before(t, "submission", exim.Port, "")
	loginsAreJudged(t, submission, "127.71.0", new(sync.RWMutex), func() func() { return exim.TakeAway(t, "passwords") }, false)
	mx := before(t, "smtp", exim.Port, "")
	recipientsAreJudged(t, mx, "127.71.1.1", map[string]string{
		"alice@example.test": "", "greylisted@example.test": "",
		"nobody@example.test": "invalid-rcpt", "gone@example.test": "invalid-rcpt", "x@example.com": "relay-denied",
	})
	log := testbed.LogFile(exim.Dir + "/spool/mainlog")
	log.Await(t, `\[127\.71\.0\.2\]: 535 Incorrect authentication data`)
	log.Await(t, `\[127\.71\.1\.1\].*relay not permitted`)
}

// What a real OpenSMTPD says is understood. It says the same of an unknown
// recipient and of a domain that it does not serve.
func TestOpenSMTPD(t *testing.T) {
	t.Parallel()
	server := bed.NewOpenSMTPD(t)
	p := before(t, "smtp", server.Port, "")
	recipientsAreJudged(t, p, "127.72.0.1", map[string]string{
		"alice@example.test": "", "nobody@example.test": "invalid-rcpt", "x@example.com": "invalid-rcpt",
	})
	server.Log.Await(t, `address=127\.72\.0\.1`)

	cfg := testbed.InFront("submission", "none", server.Port, map[string]any{"authentication": "3/1h"})
	cfg.Upstreams[0].TLS, cfg.Upstreams[0].ServerName, cfg.Upstreams[0].CA = "starttls", "mx.example.test", bed.CA.File
	cfg.Listeners[0].PlaintextAuth = "yes"
	submission := bed.NewProxy(t, cfg)
	// What it knows of passwords it has read at its start: it has no outage.
	loginsAreJudged(t, submission, "127.72.1", new(sync.RWMutex), nil, false)
	server.Log.Await(t, `authentication user=alice@example.test result=permfail`)
	const guesser = "127.72.1.2" // has two points
	submission.Guess("submission", guesser, bed.Alice.Login, bed.Secrets.New("opensmtpd-third")).Try()
	mustBan(t, submission, guesser)
	if !dropped(t, guesser, submission.Port("submission")) {
		t.Error("who is banned is served")
	}
	server.Log.Await(t, `address=127\.72\.1\.2`)
}

// A service is one port of a server that has several.
type service struct {
	protocol string
	port     int
	// lies: where the server cannot look a password up, it says that it is
	// wrong.
	lies bool
}

// judgeServices judges the logins of all services at once, each behind its own
// mailreeve: a wrong password takes some servers seconds.
func judgeServices(t *testing.T, room *testbed.Room, passwords, network string, services ...service) {
	var outage sync.RWMutex // one takes the passwords away from all
	for i, s := range services {
		t.Run(s.protocol, func(t *testing.T) {
			t.Parallel()
			awaitLogins(t, s)
			p := before(t, s.protocol, s.port, "none")
			loginsAreJudged(t, p, fmt.Sprintf("%s.%d", network, i), &outage,
				func() func() { return room.TakeAway(t, passwords) }, s.lies)
		})
	}
}

// awaitLogins waits until a service takes a right password: some listen before
// what they ask about passwords does.
func awaitLogins(t *testing.T, s service) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		g := testbed.Guess{From: "127.0.0.1", Port: s.port, Protocol: s.protocol, TLS: "none",
			Login: bed.Alice.Login, Password: bed.Alice.Password}
		answer, text, conn := g.Try()
		if conn != nil {
			conn.Close()
		}
		if answer == testbed.Accepted {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: the server itself answers a right password by %q", s.protocol, text)
		case <-tick.C:
		}
	}
}

// What a real Cyrus says is understood, as far as it can be: its POP3 and its
// ManageSieve speak of a wrong password also where they could not look.
func TestCyrus(t *testing.T) {
	t.Parallel()
	cyrus := bed.NewCyrus(t)
	judgeServices(t, cyrus.Room, "mux", "127.73", service{"imap", cyrus.IMAP, false},
		service{"pop3", cyrus.POP3, true}, service{"managesieve", cyrus.Sieve, true})
}

// What a real Courier says is understood, by IMAP, POP3 and ESMTP; the last
// speaks of a wrong password also where it could not look.
func TestCourier(t *testing.T) {
	t.Parallel()
	courier := bed.NewCourier(t)
	mx := before(t, "smtp", courier.SMTP, "none")
	mx.Log.Await(t, `server answers.* protocol=smtp .*family=courier`)
	recipientsAreJudged(t, mx, "127.74.9.1", map[string]string{
		"alice@example.test": "", "nobody@example.test": "invalid-rcpt", "x@example.com": "relay-denied",
	})
	judgeServices(t, courier.Room, "auth/socket", "127.74", service{"imap", courier.IMAP, false},
		service{"pop3", courier.POP3, false}, service{"submission", courier.SMTP, true})
}
