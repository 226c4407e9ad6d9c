package integration

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// Who takes part in a soak.

// person logs in with the right password, somewhere, does what people do there,
// and says good-bye or does not. It may be told to come later, while a server
// restarts, but never that the password is wrong.
func (s *soak) person(t *testing.T, r *rand.Rand, from string, user testbed.User) {
	listener := pick(r, soakListeners[:]...)
	answer, text, conn := s.p.Guess(listener, from, user.Login, user.Password).Try()
	switch answer {
	case testbed.Accepted:
		s.logins.Add(1)
	case testbed.Wrong:
		t.Errorf("%s from %s is told that its password is wrong: %q", user.Login, from, text)
		return
	default:
		s.later.Add(1)
		pause(250 * time.Millisecond) // as a program does that is to come later
		return
	}
	defer conn.Close()
	bye := "QUIT"
	switch {
	case strings.HasPrefix(listener, "submission"):
		if r.IntN(8) == 0 {
			s.deliver(conn, user.Login, user.Login)
		}
	case strings.HasPrefix(listener, "imap"):
		bye = "s3 LOGOUT"
		_, _ = conn.IMAP("s1", "SELECT INBOX")
		_, _ = conn.IMAP("s2", "NOOP")
	case listener == "sieve":
		bye = "LOGOUT"
		_, _ = conn.Sieve("LISTSCRIPTS")
	}
	if r.IntN(2) == 0 {
		_ = conn.Send("%s", bye)
		_, _ = conn.Line()
	}
	pause(time.Duration(r.IntN(200)) * time.Millisecond)
}

// pause is the pace at which somebody comes again.
func pause(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// sender delivers a message at the MX, to somebody or to nobody.
func (s *soak) sender(r *rand.Rand) {
	defer pause(time.Duration(r.IntN(400)) * time.Millisecond)
	conn, err := s.p.Guess("mx", fmt.Sprintf("127.83.0.%d", 1+r.IntN(50)), "", "").Open()
	if err != nil {
		return
	}
	defer conn.Close()
	to := pick(r, bed.Users[10:20]...).Login
	if r.IntN(20) == 0 {
		to = fmt.Sprintf("nobody%d@example.test", r.IntN(1000))
	}
	s.deliver(conn, envelopeFrom, to)
}

// deliver sends one message.
func (s *soak) deliver(conn *testbed.Conn, from, to string) {
	for _, line := range []string{"MAIL FROM:<" + from + ">", "RCPT TO:<" + to + ">", "DATA"} {
		if reply, err := conn.SMTP("%s", line); err != nil || reply[0] > '3' {
			return
		}
	}
	if reply, err := conn.SMTP("Subject: soak\r\n\r\n%s\r\n.", strings.Repeat("words and words\r\n", 200)); err == nil && reply[0] == '2' {
		s.messages.Add(1)
	}
}

// operator looks around, lifts bans, and has the configuration read again.
func (s *soak) operator(r *rand.Rand) {
	someone := fmt.Sprintf("127.81.%d.%d", r.IntN(4), 1+r.IntN(250))
	for _, args := range [][]string{{"status"}, {"bans"}, {"why", someone}, {"unban", someone}, {"reload"}} {
		// unban tells by its exit code that there was nothing to lift.
		if _, errs, err := s.p.Run(args...); err != nil && args[0] != "unban" {
			s.faults.Add(1)
			fmt.Printf("mailreeve %v: %v %s\n", args, err, errs)
		}
	}
	s.reloads.Add(1)
	pause(2 * time.Second)
}

// guess tries passwords from one of a thousand addresses, several at a
// connection's port until it is banned.
func (s *soak) guess(r *rand.Rand) {
	from := fmt.Sprintf("127.81.%d.%d", r.IntN(4), 1+r.IntN(250))
	listener := pick(r, soakListeners[:]...)
	for range 15 {
		g := s.p.Guess(listener, from, fmt.Sprintf("victim%d@example.test", r.IntN(300)), fmt.Sprintf("guess%x", r.Uint64()))
		answer, _, _ := g.Try()
		if answer == testbed.Unanswered {
			return
		}
		s.guesses.Add(1)
	}
}

// stranger connects and says nothing, half of something, or nonsense, and ends
// it in one way or another.
func (s *soak) stranger(r *rand.Rand) {
	conn, err := testbed.Dial(fmt.Sprintf("127.82.%d.%d", r.IntN(4), 1+r.IntN(250)), s.p.Port(pick(r, soakListeners[:]...)))
	if err != nil {
		return
	}
	defer conn.Close()
	s.strangers.Add(1)
	conn.Patience = time.Duration(r.IntN(1500)) * time.Millisecond
	switch r.IntN(5) {
	case 0:
		conn.Rest() // as long as its patience lasts
	case 1:
		conn.Send("%s", strings.Repeat("x", r.IntN(20000)))
		conn.Rest()
	case 2:
		conn.Write([]byte{0x16, 3, 1, 2, 0, 1}) // a ClientHello that never ends
		conn.Rest()
	case 3:
		conn.Line()
		conn.Write([]byte("a LOGIN {100}\r\nEHLO x\r\nUSER x\r\nAUTHENTICATE \"PLAIN\" {50}\r\n"))
		conn.Rest()
	case 4: // at once
	}
}
