package integration

import (
	"fmt"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// A slow server is what every log reader fails at: all guesses are under way
// before the first is answered.
const slow = 3 * time.Second

// Two hundred connections at once, each with another wrong password, in front
// of a server that takes three seconds to answer: the server sees no more than
// the limit, and after the ban nobody is answered.
func TestParallelGuessesNeverOvershoot(t *testing.T) {
	t.Parallel()
	const limit, guesses = 5, 200
	for _, protocol := range []string{"imap", "submission"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			fake := testbed.NewFake(t, testbed.Script{Protocol: fakeProtocol(protocol), Late: slow})
			cfg := testbed.InFront(protocol, "implicit", fake.Port, map[string]any{"authentication": fmt.Sprintf("%d/1h", limit)})
			cfg.Limits = map[string]any{"connections-per-address": 2 * guesses, "handshakes": guesses}
			p := bed.NewProxy(t, cfg)

			var answers tally
			const attacker = "127.30.0.1"
			together(guesses, func(i int) {
				answers.try(p.Guess(protocol, attacker, fmt.Sprintf("user%d@example.test", i),
					bed.Secrets.New(fmt.Sprintf("overshoot%d", i))))
			})
			if n := len(fake.Logins()); n != limit {
				t.Errorf("the server saw %d passwords, want %d", n, limit)
			}
			// The deciding reply itself is not released.
			if n := answers.count[testbed.Wrong]; n > limit-1 {
				t.Errorf("%d guesses were answered, want at most %d: %v", n, limit-1, &answers)
			}
			if n := answers.count[testbed.Accepted]; n > 0 {
				t.Errorf("%d guesses were accepted", n)
			}
			mustBan(t, p, attacker)
			if !dropped(t, attacker, p.Port(protocol)) {
				t.Error("the next connection was not dropped")
			}
		})
	}
}

// Forty phones behind one address log in at once. All get in, though their
// reservations alone are more than the limit.
func TestFortyRightPasswordsAllGetIn(t *testing.T) {
	t.Parallel()
	const phones = 40
	fake := testbed.NewFake(t, testbed.Script{
		Protocol: "imap", Late: slow,
		Login: func(testbed.FakeLogin) string { return testbed.IMAPAccepted },
	})
	// Ten at a time, three seconds each: twelve seconds, of the thirty that an
	// attempt may wait.
	cfg := testbed.InFront("imap", "implicit", fake.Port, map[string]any{"authentication": "10/1h"})
	p := bed.NewProxy(t, cfg)
	var answers tally
	together(phones, func(i int) {
		answers.try(p.Guess("imap", "127.30.0.2", fmt.Sprintf("phone%d@example.test", i),
			bed.Secrets.New(fmt.Sprintf("phone%d", i))))
	})
	if n := answers.count[testbed.Accepted]; n != phones {
		t.Errorf("%d of %d got in: %v", n, phones, &answers)
	}
	if bans := p.Bans(); len(bans) > 0 {
		t.Errorf("bans: %v", bans)
	}
}

// The same with the real servers and their users.
func TestFortyUsersOfOneOfficeGetIn(t *testing.T) {
	t.Parallel()
	const office = "127.30.0.3"
	p := bed.NewProxy(t, bed.Standard(map[string]any{"authentication": "5/1h"}))
	var answers tally
	together(40, func(i int) {
		listener := []string{"imaps", "imap", "submissions", "submission"}[i%4]
		answers.try(p.Guess(listener, office, bed.Users[i].Login, bed.Users[i].Password))
	})
	if n := answers.count[testbed.Accepted]; n != 40 {
		t.Errorf("%d of 40 got in: %v", n, &answers)
	}
	if points := p.Points(office); points != 0 {
		t.Errorf("the office has %v points", points)
	}
}

// fakeProtocol is what a fake server calls the protocol of a listener.
func fakeProtocol(protocol string) string {
	if protocol == "imap" {
		return "imap"
	}
	return "smtp"
}

// A Dovecot with its own penalties on answers late and later; it sees no more
// guesses for it.
func TestASlowDovecotSeesNoMore(t *testing.T) {
	t.Parallel()
	const limit, attacker = 5, "127.30.0.4"
	dovecot := bed.NewDovecot(t, testbed.DovecotSetup{Penalty: true})
	p := bed.NewProxy(t, testbed.InFront("imap", "implicit", dovecot.IMAPProxy, map[string]any{"authentication": fmt.Sprintf("%d/1h", limit)}))
	var answers tally
	together(20, func(i int) {
		guess := p.Guess("imap", attacker, bed.Alice.Login, bed.Secrets.New(fmt.Sprintf("penalty%d", i)))
		answers.try(guess)
	})
	mustBan(t, p, attacker)
	if n := dovecot.FlushedLog(t).Count(failedLogin(attacker)); n != limit {
		t.Errorf("Dovecot saw %d guesses, want %d: %v", n, limit, &answers)
	}
}
