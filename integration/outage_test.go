package integration

import (
	"fmt"
	"testing"

	"mailreeve/integration/testbed"
)

// What a server in trouble does with logins.
var troubles = [...]struct {
	name     string
	protocol string
	script   testbed.Script
	down     bool
}{
	{"imap down", "imap", testbed.Script{Protocol: "imap"}, true},
	{"submission down", "submission", testbed.Script{Protocol: "smtp"}, true},
	{"imap unavailable", "imap", testbed.Script{Protocol: "imap", Login: always("NO [UNAVAILABLE] Temporary authentication failure. [fake:2026-01-01 00:00:00]")}, false},
	{"imap bye", "imap", testbed.Script{Protocol: "imap", Login: always("* BYE [UNAVAILABLE] Internal login failure.")}, false},
	{"submission 454", "submission", testbed.Script{Protocol: "smtp", Login: always("454 4.7.0 Temporary authentication failure: Internal error")}, false},
	{"submission 421", "submission", testbed.Script{Protocol: "smtp", Login: always("421 4.3.0 fake.example.test Server local error")}, false},
	{"imap resets", "imap", testbed.Script{Protocol: "imap", Login: always("")}, false},
	{"submission resets", "submission", testbed.Script{Protocol: "smtp", Login: always("")}, false},
}

func always(answer string) func(testbed.FakeLogin) string {
	return func(testbed.FakeLogin) string { return answer }
}

// A thousand logins during an outage give nobody a point. Clients get a
// temporary error in their protocol's words, and nobody is told that a password
// was wrong.
func TestAnOutageBansNobody(t *testing.T) {
	t.Parallel()
	const logins, workers = 1000, 20
	for _, trouble := range troubles {
		t.Run(trouble.name, func(t *testing.T) {
			t.Parallel()
			fake := testbed.NewFake(t, trouble.script)
			// STARTTLS and handshakes are not what this is about, and a
			// thousand of each eight times are dear under the race detector.
			cfg := testbed.InFront(trouble.protocol, "none", fake.Port, map[string]any{
				"authentication": "5/1h", "login": "5/1h", "spray": "5/1h", "network": "5/1h", "loitering": "5/1h",
			})
			cfg.Listeners[0].PlaintextAuth = "yes"
			p := bed.NewProxy(t, cfg)
			if trouble.down {
				fake.Suspend()
			}
			var answers tally
			together(workers, func(worker int) {
				for i := range logins / workers {
					from := fmt.Sprintf("127.37.%d.%d", i%5, worker+1)
					login := fmt.Sprintf("user%d@example.test", (i+worker)%10)
					answers.try(p.Guess(trouble.protocol, from, login, bed.Secrets.New("outage")))
				}
			})
			for _, bad := range []testbed.Answer{testbed.Wrong, testbed.Accepted, testbed.Unanswered, testbed.Other} {
				if answers.count[bad] > 0 {
					t.Errorf("%d logins are answered %v: %v", answers.count[bad], bad, &answers)
				}
			}
			if bans := p.Bans(); len(bans) > 0 {
				t.Errorf("bans: %v", bans)
			}
			if n := p.Metric(testbed.MetricBansTotal, nil); n != 0 {
				t.Errorf("%v bans were made", n)
			}
			for _, from := range []string{"127.37.0.1", "127.37.4.20"} {
				if points := p.Points(from); points != 0 {
					t.Errorf("%s has %v points", from, points)
				}
			}
			if points := p.Points("user0@example.test"); points != 0 {
				t.Errorf("a login has %v points", points)
			}
		})
	}
}

// The server is used again as soon as it is back.
func TestAServerThatComesBackIsUsed(t *testing.T) {
	t.Parallel()
	fake := testbed.NewFake(t, testbed.Script{Protocol: "imap", Login: always(testbed.IMAPAccepted)})
	p := bed.NewProxy(t, testbed.InFront("imap", "implicit", fake.Port, nil))
	guess := p.Guess("imap", "127.37.9.1", "back@example.test", bed.Secrets.New("back"))
	fake.Suspend()
	if answer := guess.Answer(); answer != testbed.Later {
		t.Errorf("with the server down: %v, want later", answer)
	}
	fake.Resume(t)
	testbed.Eventually(t, "a login at the server that is back", func() bool { return guess.Answer() == testbed.Accepted })
}
