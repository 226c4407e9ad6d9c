package integration

import (
	"fmt"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// When a ban falls, the address's connections without a login end at once, with
// a last word in their protocol. Those with one stay, and a message under way
// at port 25 is delivered.
func TestABanEndsOpenConnections(t *testing.T) {
	t.Parallel()
	const limit, from = 5, "127.42.0.1"
	p := bed.NewProxy(t, bed.Standard(map[string]any{"authentication": fmt.Sprintf("%d/1h", limit)}))
	user, attacked := bed.Users[38], bed.Users[39]

	loggedIn := mustLogin(t, p.Guess("imaps", from, user.Login, user.Password))
	waitingIMAP := mustOpen(t, p.Guess("imaps", from, "", ""))
	waitingSMTP := mustOpen(t, p.Guess("submissions", from, "", ""))
	sending := mustOpen(t, p.Guess("mx", from, "", ""))
	for _, command := range []string{"MAIL FROM:<" + envelopeFrom + ">", "RCPT TO:<" + user.Login + ">", "DATA"} {
		if reply, err := sending.SMTP("%s", command); err != nil || reply[0] > '3' {
			t.Fatalf("%s: %q, %v", command, reply, err)
		}
	}

	for i := range limit {
		p.Guess("imaps", from, attacked.Login, bed.Secrets.New(fmt.Sprintf("cut%d", i))).Answer()
	}
	mustBan(t, p, from)

	if said, err := waitingIMAP.Rest(); err != nil || !strings.HasPrefix(said, "* BYE") {
		t.Errorf("the waiting IMAP connection heard %q, %v; want a BYE and the end", said, err)
	}
	if said, err := waitingSMTP.Rest(); err != nil || !strings.HasPrefix(said, "421") {
		t.Errorf("the waiting SMTP connection heard %q, %v; want 421 and the end", said, err)
	}
	if line, err := loggedIn.IMAP("n", "NOOP"); err != nil || !strings.HasPrefix(line, "n OK") {
		t.Errorf("the connection with a login: %q, %v", line, err)
	}
	subject := token(t)
	if reply, err := sending.SMTP("Subject: %s\r\n\r\nduring a ban\r\n.", subject); err != nil || reply[0] != '2' {
		t.Errorf("the message under way: %q, %v", reply, err)
	}
	bed.AwaitMail(t, user.Login, subject)
}

// A client that hangs up after its guess has guessed all the same.
func TestHangingUpIsNoWayOut(t *testing.T) {
	t.Parallel()
	const limit, from = 5, "127.42.1.1"
	fake := testbed.NewFake(t, testbed.Script{Protocol: "imap", Late: slow})
	p := bed.NewProxy(t, testbed.InFront("imap", "implicit", fake.Port, map[string]any{"authentication": fmt.Sprintf("%d/1h", limit)}))
	for i := range 2 * limit {
		conn, err := p.Guess("imap", from, "", "").Open()
		if err != nil {
			break // banned meanwhile
		}
		conn.Send("a LOGIN victim%d@example.test %s", i, bed.Secrets.New(fmt.Sprintf("hangup%d", i)))
		conn.Close()
	}
	mustBan(t, p, from)
	if n := len(fake.Logins()); n > limit {
		t.Errorf("the server saw %d guesses, want at most %d", n, limit)
	}
}

// Allow beats ban, at once: for the next connection, and by hand.
func TestAllowBeatsBan(t *testing.T) {
	t.Parallel()
	const from = "127.42.2.1"
	p := bed.NewProxy(t, bed.Standard(nil))
	p.Admin("ban", from)
	if !dropped(t, from, p.Port("imaps")) || !dropped(t, from, p.Port("mx")) {
		t.Error("a ban by hand does not hold everywhere")
	}
	p.Admin("allow", from)
	mustOpen(t, p.Guess("imaps", from, "", ""))
	p.Admin("disallow", from)
	if !dropped(t, from, p.Port("imaps")) {
		t.Error("without the allow entry the ban does not hold again")
	}
	p.Admin("unban", from)
	mustOpen(t, p.Guess("imaps", from, "", ""))
}
