package integration

import (
	"fmt"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// The machine's clock is set back by an hour, and by a day over a crash. A ban
// of one hour still ends after an hour, neither sooner nor later.
func TestAClockSetBackMakesNoBanEternal(t *testing.T) {
	t.Parallel()
	const limit, from, later = 3, "127.59.0.1", "127.59.1.1"
	p := bed.NewProxyWithClock(t, bed.Standard(map[string]any{"authentication": fmt.Sprintf("%d/1h", limit)}))
	guess := func(from string) {
		t.Helper()
		for i := range limit {
			p.Guess("imaps", from, bed.Users[43].Login, bed.Secrets.New(fmt.Sprintf("clock%d", i))).Answer()
		}
		mustBan(t, p, from)
	}
	holds := func(from string, rest time.Duration) {
		t.Helper()
		p.Pass(rest - time.Minute)
		if !dropped(t, from, p.Port("imaps")) {
			t.Errorf("%s gets in a minute before its ban ends", from)
		}
		p.Pass(2 * time.Minute)
		p.Admin("status")
		mustLogin(t, p.Guess("imaps", from, bed.Users[43].Login, bed.Users[43].Password)).Close()
		testbed.Eventually(t, "the end of the ban of "+from, func() bool { _, banned := p.Banned(from); return !banned })
	}
	guess(from)
	p.Pass(-time.Hour)
	p.Admin("status") // the guard looks at its clock, as it does every second
	holds(from, time.Hour)

	guess(later)
	p.Kill9()
	p.Pass(-24 * time.Hour)
	p.Restart()
	holds(later, time.Hour)
}

// Who guesses once every eleven minutes stays under ten an hour for ever, and is
// caught by the default rules all the same.
func TestAPatientGuesserIsCaught(t *testing.T) {
	t.Parallel()
	const from = "127.59.2.1"
	p := bed.NewProxyWithClock(t, bed.Standard(defaults(nil)))
	wrong := bed.Secrets.New("patient")
	var answers tally
	for i := range 40 {
		if _, banned := p.Banned(from); banned {
			break
		}
		answers.try(p.Guess("imaps", from, bed.Users[44].Login, fmt.Sprintf("%s-%d", wrong, i)))
		p.Pass(11 * time.Minute)
	}
	ban := mustBan(t, p, from)
	if n := bed.Dovecot.FlushedLog(t).Count(failedLogin(from)); ban.Rule != "authentication-slow" || n != 30 {
		t.Errorf("%d guesses reached the server before the ban by %s: %v", n, ban.Rule, &answers)
	}
}

// A password that was changed on the server works within the minute, also where
// it was wrong a moment ago.
func TestAChangedPasswordWorksWithinTheMinute(t *testing.T) {
	t.Parallel()
	const from, login = "127.59.3.1", "changed@example.test"
	fresh := bed.Secrets.New("changed")
	current := bed.Secrets.New("before")
	fake := testbed.NewFake(t, testbed.Script{Protocol: "imap", Login: func(l testbed.FakeLogin) string {
		if l.Password == current {
			return testbed.IMAPAccepted
		}
		return testbed.IMAPWrong
	}})
	p := bed.NewProxyWithClock(t, testbed.InFront("imap", "implicit", fake.Port, defaults(nil)))
	guess := p.Guess("imap", from, login, fresh)
	for range 5 {
		if answer := guess.Answer(); answer != testbed.Wrong {
			t.Fatalf("before the change the answer is %v", answer)
		}
	}
	fake.Suspend() // so that the script is not changed under a login
	current = fresh
	fake.Resume(t)
	if answer := guess.Answer(); answer != testbed.Wrong {
		t.Errorf("at once the answer is %v; it is ours for a minute", answer)
	}
	p.Pass(time.Minute)
	mustLogin(t, guess)
	if n := len(fake.Logins()); n != 2 {
		t.Errorf("the server was asked %d times, want once before the change and once after it", n)
	}
}
