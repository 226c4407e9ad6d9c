package integration

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// A power cut in the middle of an attack changes no ban: it stands afterwards,
// with the same end. What was forgiven stays forgiven.
func TestBansSurviveAKill(t *testing.T) {
	t.Parallel()
	const banned, forgiven = "127.36.0.1", "127.36.0.2"
	fake := testbed.NewFake(t, testbed.Script{Protocol: "imap"})
	p := bed.NewProxy(t, testbed.InFront("imap", "implicit", fake.Port, map[string]any{"authentication": "5/1h"}))
	guess := func(from string, i int) testbed.Guess {
		return p.Guess("imap", from, "victim@example.test", bed.Secrets.New(fmt.Sprintf("kill%d-%s", i, from)))
	}
	for i := range 5 {
		guess(banned, i).Answer()
		guess(forgiven, i).Answer()
	}
	before := mustBan(t, p, banned)
	mustBan(t, p, forgiven)
	p.Admin("unban", forgiven)

	// The attack that goes on while the power fails.
	var others sync.WaitGroup
	for i := range 20 {
		others.Go(func() { guess(fmt.Sprintf("127.36.1.%d", i+1), i).Answer() })
	}
	p.Kill9()
	others.Wait()
	p.Restart()

	after, ok := p.Banned(banned)
	if !ok {
		t.Fatalf("the ban is gone; bans: %v", p.Bans())
	}
	if !after.Until.Equal(before.Until) {
		t.Errorf("the ban ends %v, ended %v before the kill", after.Until, before.Until)
	}
	if !dropped(t, banned, p.Port("imap")) {
		t.Error("the banned address gets in")
	}
	if _, ok := p.Banned(forgiven); ok {
		t.Error("the forgiven address is banned again")
	}
	if answer := guess(forgiven, 99).Answer(); answer != testbed.Wrong {
		t.Errorf("a guess of the forgiven address is answered %v, want wrong", answer)
	}
	if points := p.Points(forgiven); points != 1 {
		t.Errorf("the forgiven address has %v points, want 1", points)
	}
}

// Counters are at most a second behind: who was one guess away from the limit
// still is.
func TestCountersSurviveAKill(t *testing.T) {
	t.Parallel()
	const from = "127.36.2.1"
	fake := testbed.NewFake(t, testbed.Script{Protocol: "imap"})
	p := bed.NewProxy(t, testbed.InFront("imap", "implicit", fake.Port, map[string]any{"authentication": "5/1h"}))
	for i := range 4 {
		p.Guess("imap", from, "victim@example.test", bed.Secrets.New(fmt.Sprintf("counter%d", i))).Answer()
	}
	wait(1500 * time.Millisecond) // what the store promises is a second
	p.Kill9()
	p.Restart()
	if points := p.Points(from); points != 4 {
		t.Errorf("%v points after the restart, want 4", points)
	}
	p.Guess("imap", from, "victim@example.test", bed.Secrets.New("counter4")).Answer()
	mustBan(t, p, from)
	if n := len(fake.Logins()); n != 5 {
		t.Errorf("the server saw %d guesses over both lives, want 5", n)
	}
}

// An orderly stop loses nothing at all.
func TestCountersSurviveAStop(t *testing.T) {
	t.Parallel()
	const from = "127.36.3.1"
	fake := testbed.NewFake(t, testbed.Script{Protocol: "imap"})
	p := bed.NewProxy(t, testbed.InFront("imap", "implicit", fake.Port, map[string]any{"authentication": "5/1h"}))
	for i := range 4 {
		p.Guess("imap", from, "victim@example.test", bed.Secrets.New(fmt.Sprintf("stop%d", i))).Answer()
	}
	p.Stop()
	p.Restart()
	if points := p.Points(from); points != 4 {
		t.Errorf("%v points after the restart, want 4", points)
	}
}
