package integration

import (
	"fmt"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// lax is mailreeve before an MX that does not lose patience itself.
func lax(t *testing.T, limit string) *testbed.Proxy {
	t.Helper()
	return bed.NewProxy(t, testbed.InFront("smtp", "none", bed.Postfix.MXLaxProxy, map[string]any{"invalid-rcpt": limit}))
}

// mail opens a connection and a transaction.
func mail(t *testing.T, p *testbed.Proxy, from string) *testbed.Conn {
	t.Helper()
	conn := mustOpen(t, p.Guess("smtp", from, "", ""))
	if reply, err := conn.SMTP("MAIL FROM:<%s>", envelopeFrom); err != nil || reply[0] != '2' {
		t.Fatalf("MAIL: %q, %v", reply, err)
	}
	return conn
}

// Thirty-five unknown recipients in one connection are too many.
func TestUnknownRecipientsInOneConnection(t *testing.T) {
	t.Parallel()
	const limit, harvester = 35, "127.33.0.1"
	p := lax(t, fmt.Sprintf("%d/1d", limit))
	conn := mail(t, p, harvester)
	for i := range limit {
		reply, err := conn.SMTP("RCPT TO:<nobody%d@example.test>", i)
		if i < limit-1 && !strings.HasPrefix(reply, "550 5.1.1") {
			t.Fatalf("recipient %d: %q, %v", i+1, reply, err)
		}
		if i == limit-1 && strings.HasPrefix(reply, "550") {
			t.Errorf("the deciding reply was released: %q", reply)
		}
	}
	mustBan(t, p, harvester)
	if _, err := conn.Rest(); err != nil {
		t.Errorf("the connection lives on: %v", err)
	}
	if !dropped(t, harvester, p.Port("smtp")) {
		t.Error("the next connection was not dropped")
	}
}

// Spread over many connections they add up; the same one again does not.
func TestUnknownRecipientsOverManyConnections(t *testing.T) {
	t.Parallel()
	const limit, harvester = 10, "127.33.0.2"
	p := lax(t, fmt.Sprintf("%d/1d", limit))
	for i := range limit - 1 {
		conn := mail(t, p, harvester)
		for range 3 {
			if reply, err := conn.SMTP("RCPT TO:<gone%d@example.test>", i); !strings.HasPrefix(reply, "550 5.1.1") {
				t.Fatalf("recipient %d: %q, %v", i, reply, err)
			}
		}
		conn.SMTP("QUIT")
	}
	if points := p.Points(harvester); points != limit-1 {
		t.Errorf("%v points for %d distinct unknown recipients", points, limit-1)
	}
	conn := mail(t, p, harvester)
	conn.SMTP("RCPT TO:<gone%d@example.test>", limit)
	mustBan(t, p, harvester)
}

// Replies that refuse a recipient for what the client, the sender or the moment
// is say nothing about whether it exists.
func TestOtherRefusalsAreNotUnknownRecipients(t *testing.T) {
	t.Parallel()
	const sender = "127.33.0.3"
	p := lax(t, "10/1d")
	conn := mail(t, p, sender)
	for i := range 20 {
		for _, c := range []struct{ rcpt, want string }{
			{"greylisted@example.test", "450 4.2.0"},
			{"listed@example.test", "554 5.7.1"},
			{"policy@example.test", "554 5.7.1"},
		} {
			if reply, err := conn.SMTP("RCPT TO:<%s>", c.rcpt); !strings.HasPrefix(reply, c.want) {
				t.Fatalf("round %d, %s: %q, %v", i, c.rcpt, reply, err)
			}
		}
	}
	if points := p.Points(sender); points != 0 {
		t.Errorf("%v points, want none", points)
	}
	// To ask for relaying is an offence, but another one.
	if reply, err := conn.SMTP("RCPT TO:<x@example.com>"); !strings.HasPrefix(reply, "554 5.7.1") {
		t.Fatalf("relaying: %q, %v", reply, err)
	}
	if n := p.Metric(testbed.MetricEvents, testbed.Labels{"kind": "invalid-rcpt"}); n != 0 {
		t.Errorf("%v events of kind invalid-rcpt, want none", n)
	}
	if n := p.Metric(testbed.MetricEvents, testbed.Labels{"kind": "relay-denied"}); n != 1 {
		t.Errorf("%v events of kind relay-denied, want 1", n)
	}
}

// A big sender whose recipients are mostly good is not banned for the few that
// are not.
func TestABigSenderIsNotBanned(t *testing.T) {
	t.Parallel()
	const sender = "127.33.0.4"
	fake := testbed.NewFake(t, testbed.Script{Protocol: "smtp", Rcpt: func(rcpt string) string {
		if strings.HasPrefix(rcpt, "gone") {
			return "550 5.1.1 <" + rcpt + ">: Recipient address rejected: User unknown in virtual mailbox table"
		}
		return "250 2.1.5 Ok"
	}})
	p := bed.NewProxy(t, testbed.InFront("smtp", "none", fake.Port, map[string]any{"invalid-rcpt": "10/1d"}))
	conn := mustOpen(t, p.Guess("smtp", sender, "", ""))
	for i := range 15 {
		commands := []string{"MAIL FROM:<list@example.org>", fmt.Sprintf("RCPT TO:<gone%d@example.test>", i)}
		for j := range 8 {
			commands = append(commands, fmt.Sprintf("RCPT TO:<reader%d-%d@example.test>", i, j))
		}
		for _, c := range append(commands, "DATA", "Subject: news\r\n\r\nnews\r\n.") {
			if reply, err := conn.SMTP("%s", c); err != nil || strings.HasPrefix(reply, "421") {
				t.Fatalf("message %d: %q is answered %q, %v", i+1, c, reply, err)
			}
		}
	}
	if _, banned := p.Banned(sender); banned {
		t.Error("the sender is banned for 15 bad recipients among 120 good ones")
	}
}
