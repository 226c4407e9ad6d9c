package integration

import (
	"fmt"
	"testing"

	"mailreeve/integration/testbed"
)

// Forty addresses try one login once each. The server sees as many as the limit
// allows; the next and all later ones are refused by us, and temporarily, with
// the right password or not, over whichever protocol.
func TestALoginIsClosedAfterItsLimit(t *testing.T) {
	t.Parallel()
	const limit, addresses = 20, 40
	p := bed.NewProxy(t, bed.Standard(map[string]any{"login": fmt.Sprintf("%d/1h", limit), "familiar": "0"}))
	victim := bed.Users[20]
	var answers tally
	for i := range addresses {
		listener := []string{"imaps", "submissions"}[i%2]
		from := fmt.Sprintf("127.31.%d.1", i) // a network each
		answer := answers.try(p.Guess(listener, from, victim.Login, bed.Secrets.New(fmt.Sprintf("botnet%d", i))))
		want := testbed.Wrong
		if i >= limit {
			want = testbed.Later
		}
		// The reply to the deciding guess may be either: the login is closed
		// once it is known.
		if answer != want && i != limit-1 {
			t.Errorf("guess %d is answered %v, want %v: %v", i+1, answer, want, &answers)
		}
	}
	pattern := `passwd-file\(` + victim.Login + `,127\.31\.\d+\.1[,)].*Password mismatch`
	if n := bed.Dovecot.FlushedLog(t).Count(pattern); n != limit {
		t.Errorf("the servers saw %d guesses, want %d", n, limit)
	}

	for _, listener := range []string{"imaps", "imap", "submissions", "submission"} {
		answer := answers.try(p.Guess(listener, "127.31.200.1", victim.Login, victim.Password))
		if answer != testbed.Later {
			t.Errorf("the right password at %s is answered %v, want later: %v", listener, answer, &answers)
		}
	}
	other := bed.Users[21]
	if answer := answers.try(p.Guess("imaps", "127.31.200.2", other.Login, other.Password)); answer != testbed.Accepted {
		t.Errorf("another login is answered %v: %v", answer, &answers)
	}
	p.Admin("unban", victim.Login)
	if answer := answers.try(p.Guess("imaps", "127.31.200.3", victim.Login, victim.Password)); answer != testbed.Accepted {
		t.Errorf("after unban the login is answered %v: %v", answer, &answers)
	}
}

// At the same moment from forty addresses, in front of a slow server, the limit
// holds as well.
func TestALoginIsClosedInTime(t *testing.T) {
	t.Parallel()
	const limit, addresses = 20, 40
	fake := testbed.NewFake(t, testbed.Script{Protocol: "imap", Late: slow})
	p := bed.NewProxy(t, testbed.InFront("imap", "implicit", fake.Port,
		map[string]any{"login": fmt.Sprintf("%d/1h", limit), "familiar": "0"}))
	var answers tally
	together(addresses, func(i int) {
		answers.try(p.Guess("imap", fmt.Sprintf("127.32.%d.1", i), "victim@example.test",
			bed.Secrets.New(fmt.Sprintf("swarm%d", i))))
	})
	if n := len(fake.Logins()); n != limit {
		t.Errorf("the server saw %d guesses, want %d: %v", n, limit, &answers)
	}
	if n := answers.count[testbed.Later]; n < addresses-limit {
		t.Errorf("%d were refused temporarily, want at least %d: %v", n, addresses-limit, &answers)
	}
}
