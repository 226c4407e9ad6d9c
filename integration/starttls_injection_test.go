package integration

import (
	"fmt"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// Bytes behind STARTTLS, sent in the clear by whoever sits in between, would be
// carried out as if they came from within TLS. The connection ends; nothing of
// them reaches the server.
func TestInjectionBehindSTARTTLSIsCut(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, bed.Standard(nil))
	cases := []struct{ listener, before, attack, answer string }{
		{"mx", "EHLO x.example.test", "STARTTLS\r\nMAIL FROM:<injected@example.org>\r\n", "220"},
		{"submission", "EHLO x.example.test", "STARTTLS\r\nEHLO injected.example.test\r\n", "220"},
		{"imap", "", "a STARTTLS\r\nb CAPABILITY\r\n", "a OK"},
	}
	for i, c := range cases {
		t.Run(c.listener, func(t *testing.T) {
			from := fmt.Sprintf("127.39.0.%d", i+1)
			conn, err := testbed.Dial(from, p.Port(c.listener))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Reply(); err != nil {
				t.Fatal(err)
			}
			if c.before != "" {
				if _, err := conn.SMTP("%s", c.before); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := conn.Write([]byte(c.attack)); err != nil {
				t.Fatal(err)
			}
			said, err := conn.Rest()
			if err != nil {
				t.Errorf("the connection lives on: %v", err)
			}
			if strings.HasPrefix(said, c.answer) {
				t.Errorf("TLS was begun: %q", said)
			}
			testbed.Eventually(t, "an event of kind injection", func() bool {
				return p.Metric(testbed.MetricEvents, testbed.Labels{"kind": "injection", "listener": c.listener}) == 1
			})
		})
	}
	if n := bed.Postfix.Log.Count(`injected`); n > 0 {
		t.Error("Postfix saw what was injected")
	}
}

// What a client said before TLS is forgotten with it: on port 25 the server is
// dialled anew, and the old envelope is gone.
func TestSTARTTLSForgetsTheEnvelope(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, bed.Standard(nil))
	conn, err := testbed.Dial("127.39.1.1", p.Port("mx"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Reply(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ say, want string }{
		{"EHLO x.example.test", "250"}, {"MAIL FROM:<x@example.org>", "250"}, {"RSET", "250"}, {"STARTTLS", "220"},
	} {
		if reply, err := conn.SMTP("%s", c.say); !strings.HasPrefix(reply, c.want) {
			t.Fatalf("%s: %q, %v", c.say, reply, err)
		}
	}
	if err := conn.Handshake(testbed.AnyTLS()); err != nil {
		t.Fatal(err)
	}
	reply, err := conn.SMTP("EHLO x.example.test")
	if err != nil || strings.Contains(reply, "STARTTLS") {
		t.Errorf("EHLO within TLS: %q, %v", reply, err)
	}
	if reply, err := conn.SMTP("RCPT TO:<%s>", bed.Alice.Login); !strings.HasPrefix(reply, "503") {
		t.Errorf("RCPT without MAIL within TLS: %q, %v", reply, err)
	}
}

// Before TLS a password is neither asked for nor passed on.
func TestPasswordsAreRefusedWithoutTLS(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, bed.Standard(nil))
	user := bed.Users[34]
	for _, listener := range []string{"imap", "submission", "mx"} {
		guess := p.Guess(listener, "127.39.2.1", user.Login, user.Password)
		guess.TLS = "none"
		answer, text, conn := guess.Try()
		if conn != nil {
			conn.Close()
		}
		if answer == testbed.Accepted || answer == testbed.Wrong {
			t.Errorf("%s without TLS: %v, %q", listener, answer, text)
		}
	}
	if n := bed.Dovecot.Log.Count(`rip=127\.39\.2\.1,|` + user.Login + `,127\.39\.2\.1`); n > 0 {
		t.Errorf("Dovecot has %d lines about it", n)
	}
}
