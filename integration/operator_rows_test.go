package integration

import (
	"fmt"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// What an odd server's replies mean is told by rows in the configuration: one
// that refuses logins in words of its own, one whose 535 is a filter's, one
// that knows a recipient not in its own way.
func TestOperatorsReplyRows(t *testing.T) {
	t.Parallel()
	smtp := testbed.NewFake(t, testbed.Script{Protocol: "smtp",
		Login: func(l testbed.FakeLogin) string {
			if l.Login == "filtered" {
				return "535 5.7.1 blocked by filter"
			}
			return "550 5.7.99 Computer says no"
		},
		Rcpt: func(string) string { return "557 Not at this address" },
	})
	imap := testbed.NewFake(t, testbed.Script{Protocol: "imap", Login: always("NO [ALERT] Computer says no")})
	cfg := testbed.InFront("smtp", "none", smtp.Port, map[string]any{"authentication": "100/1h", "invalid-rcpt": "100/1d"})
	cfg.Upstreams = append(cfg.Upstreams, testbed.Upstream{Name: "imap", Addresses: []string{fmt.Sprintf("127.0.0.1:%d", imap.Port)}})
	yes := true
	cfg.Listeners[0].Auth, cfg.Listeners[0].PlaintextAuth = &yes, "yes"
	cfg.Listeners = append(cfg.Listeners, testbed.Listener{Name: "imap", Protocol: "imap", TLS: "none", Upstream: "imap", PlaintextAuth: "yes"})
	p := bed.NewProxy(t, cfg)

	look := func(from string) (points [4]float64) {
		for i, guess := range []testbed.Guess{
			p.Guess("smtp", from+"1", "alice", bed.Secrets.New("rows1"+from)),
			p.Guess("smtp", from+"2", "filtered", bed.Secrets.New("rows2"+from)),
			p.Guess("imap", from+"3", "alice", bed.Secrets.New("rows3"+from)),
		} {
			guess.Answer()
			points[i] = p.Points(guess.From)
		}
		conn := toMail(t, p, from+"4")
		if reply, err := conn.SMTP("RCPT TO:<who@example.test>"); !strings.HasPrefix(reply, "557") {
			t.Errorf("RCPT: %q, %v", reply, err)
		}
		points[3] = p.Points(from + "4")
		return points
	}
	if got, want := look("127.80.0."), [4]float64{0, 1, 0, 0}; got != want {
		t.Errorf("without rows: points %v, want %v", got, want)
	}
	cfg = p.Config
	cfg.Replies = []map[string]any{
		{"protocol": "smtp", "command": "AUTH", "code": "550", "enhanced": "5.7.99", "means": "failure"},
		{"protocol": "smtp", "command": "AUTH", "code": "535", "text": "blocked by filter", "means": "neutral"},
		{"protocol": "imap", "command": "AUTH", "code": "NO", "text": "computer says no", "means": "failure"},
		{"protocol": "smtp", "command": "RCPT", "code": "557", "means": "invalid-rcpt"},
	}
	p.WriteConfig(cfg)
	p.Admin("reload")
	if got, want := look("127.80.1."), [4]float64{1, 0, 1, 1}; got != want {
		t.Errorf("with rows: points %v, want %v", got, want)
	}

	cfg.Replies = []map[string]any{{"protocol": "smtp", "command": "AUTH", "text": "(", "means": "failure"}}
	p.WriteConfig(cfg)
	_, errs, err := p.Run("reload")
	if err == nil || !strings.Contains(errs, "config.toml:") {
		t.Errorf("a row that is wrong: %v, %q", err, errs)
	}
}

// One guess at a login that nobody has, or one recipient that nobody has, is
// enough.
func TestHoneypotLoginsAndTrapRecipients(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, bed.Standard(map[string]any{
		"authentication": "10/1h", "honeypot-logins": []string{"root@example.test"},
		"invalid-rcpt": "35/1d", "trap-recipients": []string{"trap@example.test"},
	}))
	p.Guess("imaps", "127.80.2.1", "Root@example.test", bed.Secrets.New("honeypot")).Answer()
	mustBan(t, p, "127.80.2.1")

	conn := mustOpen(t, p.Guess("mx", "127.80.2.2", "", ""))
	_, _ = conn.SMTP("MAIL FROM:<" + envelopeFrom + ">")
	_, _ = conn.SMTP("RCPT TO:<Trap@Example.Test>")
	ban := mustBan(t, p, "127.80.2.2")
	if ban.Scope != "mx" {
		t.Errorf("the ban is for %q, want mx", ban.Scope)
	}
}

// A greeting held back and a rate of connections, through the whole program.
func TestGreetDelayAndConnectionRate(t *testing.T) {
	t.Parallel()
	cfg := bed.Standard(map[string]any{"abuse": "3/1d"}).Without("submission", "submissions", "imap")
	cfg.Listeners[0].GreetDelay = "1s"
	cfg.Limits = map[string]any{"connection-rate": "5/1h"}
	p := bed.NewProxy(t, cfg)
	conn, err := testbed.Dial("127.80.3.1", p.Port("mx"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Send("EHLO spam.example.test\r\nMAIL FROM:<%s>", envelopeFrom); err != nil {
		t.Fatal(err)
	}
	mustBan(t, p, "127.80.3.1")
	patient := mustOpen(t, p.Guess("mx", "127.80.3.2", "", ""))
	if reply, err := patient.SMTP("QUIT"); !strings.HasPrefix(reply, "221") {
		t.Errorf("QUIT: %q, %v", reply, err)
	}
	for range 4 {
		mustOpen(t, p.Guess("mx", "127.80.3.2", "", "")).Close()
	}
	if !dropped(t, "127.80.3.2", p.Port("imaps")) {
		t.Error("the sixth connection was served")
	}
	if bans := p.Bans(); len(bans) != 1 {
		t.Errorf("bans: %v", bans)
	}
}
