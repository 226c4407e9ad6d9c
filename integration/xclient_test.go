package integration

import (
	"strconv"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// A Postfix that is told by XCLIENT knows the client's address and the name in
// its EHLO, as its log and its Received: header show.
func TestXCLIENTTellsPostfixWhoTheClientIs(t *testing.T) {
	t.Parallel()
	cfg := testbed.InFront("smtp", "starttls", bed.Postfix.XClient, nil)
	cfg.Upstreams[0].ProxyProtocol = "xclient"
	p := bed.NewProxy(t, cfg)
	user := bed.Users[47]
	guess := p.Guess("smtp", "127.60.0.1", "", "")
	for _, tls := range []string{"none", "starttls"} {
		guess.TLS = tls
		conn := mustOpen(t, guess)
		for _, d := range []struct{ say, want string }{
			{"XCLIENT ADDR=192.0.2.1 LOGIN=root", "502"},
			{"MAIL FROM:<" + envelopeFrom + ">", "250"},
			{"RCPT TO:<x@example.com>", "554 5.7.1"}, // 192.0.2.1 might relay
			{"RCPT TO:<" + user.Login + ">", "250"},
			{"DATA", "354"},
			{"Subject: xclient\r\n\r\nby " + tls + "\r\n.", "250"},
			{"QUIT", "221"},
		} {
			if reply, err := conn.SMTP("%s", d.say); err != nil || !strings.HasPrefix(reply, d.want) {
				t.Fatalf("%s: %q, %v; want %s", d.say, reply, err, d.want)
			}
		}
	}
	bed.Postfix.Log.Await(t, `client=unknown\[127\.60\.0\.1\]`)

	imap := withHeader(t, "198.51.100.60", bed.Dovecot.IMAPProxy)
	if _, err := imap.IMAP("a", "LOGIN %s %s", user.Login, user.Password); err != nil {
		t.Fatal(err)
	}
	received := "Received: from client.example.test (unknown [127.60.0.1])"
	testbed.Eventually(t, "two messages with "+received, func() bool {
		if _, err := imap.IMAP("s", "SELECT INBOX"); err != nil {
			t.Fatal(err)
		}
		if err := imap.Send("f FETCH 1:* (BODY.PEEK[HEADER])"); err != nil {
			t.Fatal(err)
		}
		n := 0
		for {
			line, err := imap.Line()
			if err != nil {
				t.Fatal(err)
			}
			if line == received {
				n++
			}
			if strings.HasPrefix(line, "f ") {
				return n == 2
			}
		}
	})
}

// Passwords are judged by the server as ever, and wrong ones are the client's.
func TestXCLIENTAndLogins(t *testing.T) {
	t.Parallel()
	cfg := testbed.InFront("submission", "implicit", bed.Postfix.XClient, map[string]any{"authentication": "2/1h"})
	cfg.Upstreams[0].ProxyProtocol = "xclient"
	p := bed.NewProxy(t, cfg)
	user := bed.Users[46]
	conn := mustLogin(t, p.Guess("submission", "127.60.1.1", user.Login, user.Password))
	for _, d := range []struct{ say, want string }{
		{"MAIL FROM:<" + user.Login + ">", "250"},
		{"RCPT TO:<x@example.com>", "250"}, // by right of the login
		{"RSET", "250"},
	} {
		if reply, err := conn.SMTP("%s", d.say); err != nil || !strings.HasPrefix(reply, d.want) {
			t.Errorf("%s: %q, %v; want %s", d.say, reply, err, d.want)
		}
	}
	for i := range 2 {
		answer, text, _ := p.Guess("submission", "127.60.1.2", user.Login, bed.Secrets.New("xclient"+strconv.Itoa(i))).Try()
		if answer != testbed.Wrong && answer != testbed.GoodBye && answer != testbed.Unanswered {
			t.Errorf("a wrong password: %v %q", answer, text)
		}
	}
	mustBan(t, p, "127.60.1.2")
	bed.Postfix.Log.Await(t, `unknown\[127\.60\.1\.2\]: SASL PLAIN authentication failed`)
}

// A Postfix that does not let us speak for others is found out before the
// first client comes, and which line to change is said.
func TestXCLIENTNotAllowedIsExplained(t *testing.T) {
	t.Parallel()
	cfg := testbed.InFront("smtp", "starttls", bed.Postfix.MX, nil)
	cfg.Upstreams[0].ProxyProtocol = "xclient"
	p := bed.PrepareProxy(t, cfg)
	out, errs, err := p.Run("check")
	if err == nil {
		t.Error("check finds nothing wrong")
	}
	if !strings.Contains(out+errs, "smtpd_authorized_xclient_hosts") {
		t.Errorf("check says %q %q", out, errs)
	}
}
