package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// Attacks on POP3 and ManageSieve. In both a reply is told apart from another
// by its place alone, so that one more, or one less, would blind us.

// A mailboxAttack is what a client sends, and how many guesses are in it for
// anybody who reads it as the protocol has it. WRONG stands for a password that
// nobody has tried, %GUESS% for the same as PLAIN has it, %LEN% for its length.
type mailboxAttack struct {
	text    string
	guesses int
}

var pop3Attacks = []mailboxAttack{
	{"CAPA\r\nUSER alice\r\nPASS WRONG\r\nNOOP\r\n", 1},
	{"USER alice\r\nUSER bob\r\nPASS WRONG\r\nPASS WRONG\r\n", 1},
	{"USER alice\rPASS right\r\n", 0},
	{"USER alice\nPASS right\n", 0},
	{"USER alice\r\nNOOP\rPASS right\r\n", 0},
	{"USER alice\x00\r\nPASS right\r\n", 0},
	{"PASS right\r\n", 0},
	{"USER\talice\r\nPASS\tright\r\n", 0},
	{" USER alice\r\n PASS right\r\n", 0},
	{"APOP alice right\r\n", 0},
	{"XCLIENT ADDR=127.0.0.1\r\nXOIP 127.0.0.1\r\nUSER alice\r\nPASS WRONG\r\n", 1},
	{"AUTH PLAIN\r\nUSER alice\r\nPASS right\r\n", 0},
	{"AUTH PLAIN\r\n%GUESS%\r\n%GUESS%\r\n", 1},
	{"AUTH PLAIN %GUESS%\r\nAUTH LOGIN %GUESS% right\r\n", 1},
	{"AUTH PLAIN =\r\nPASS right\r\n", 0},
	{"AUTH PLAIN *\r\nPASS right\r\n", 0},
	{"AUTH PLAIN\r\n*\r\nPASS right\r\n", 0},
	{"AUTH PLAIN\r\n" + strings.Repeat("A", 8180) + "\r\nPASS right\r\n", 0},
	{"USER alice\r\nPASS " + strings.Repeat("x", 8180) + "right\r\n", 0},
	{"USER " + strings.Repeat("x", 8180) + "\r\nPASS right\r\n", 0},
}

const sieveHidden = "AUTHENTICATE \"PLAIN\" \"right\"\r\n" // 30 octets

var sieveAttacks = []mailboxAttack{
	{"CAPABILITY\r\nAUTHENTICATE \"PLAIN\" \"%GUESS%\"\r\nCAPABILITY\r\n", 1},
	{"CAPABILITY\r\nNOOP {30+}\r\n" + sieveHidden + "\r\nAUTHENTICATE \"PLAIN\" \"%GUESS%\"\r\n", 1},
	{"CAPABILITY\r\nNOOP \"x\"\r\nAUTHENTICATE \"PLAIN\" \"%GUESS%\"\r\n", 1},
	{"NOOP {30}\r\n" + sieveHidden + "\r\n", 0},
	{"CAPABILITY {30+}\r\n" + sieveHidden + "\r\n", 0},
	{"LOGOUT {30+}\r\n" + sieveHidden + "\r\n", 0},
	{"NONSENSE {30+}\r\n" + sieveHidden + "\r\n", 0},
	{"NOOP \"x {30+}\r\n" + sieveHidden + "\r\n", 0},
	{"NOOP \"x\\\" {30+}\r\n" + sieveHidden + "\r\n", 0},
	{"NOOP x{30+}\r\n" + sieveHidden + "\r\n", 0},
	{"NOOP {-1+}\r\n" + sieveHidden, 0},
	{"NOOP {+30}\r\n" + sieveHidden, 0},
	{"NOOP {030+}\r\n" + sieveHidden + "\r\n", 0},
	{"NOOP {99999999999999999999+}\r\n" + sieveHidden, 0},
	{"NOOP {12000+}\r\n" + strings.Repeat(sieveHidden, 400) + "\r\n", 0},
	{"NOOP\r" + sieveHidden, 0},
	{"NOOP\n" + sieveHidden[:28] + "\n", 0},
	{"AUTHENTICATE \"PLAIN\" {30+}\r\n" + sieveHidden + "\r\n", 0},
	{"AUTHENTICATE \"PLAIN\"\r\n" + sieveHidden, 0},
	{"AUTHENTICATE \"PLAIN\"\r\n{30+}\r\n" + sieveHidden + "\r\n", 0},
	{"AUTHENTICATE \"PLAIN\"\r\n\"*\"\r\n\"right\"\r\n", 0},
	{"AUTHENTICATE \"PLAIN\" \"=\"\r\n", 0},
	{"AUTHENTICATE {5+}\r\nPLAIN {%LEN%+}\r\n%GUESS%\r\n", 1},
	{"XCLIENT \"ADDR=127.0.0.1\"\r\nAUTHENTICATE \"PLAIN\" \"%GUESS%\"\r\n", 1},
	{"UNAUTHENTICATE\r\nAUTHENTICATE \"PLAIN\" \"%GUESS%\"\r\n", 1},
}

// What the server believed to be a guess is what we believed to be one, however
// it is dressed up, and nothing that is none for us logs in.
func TestAttackMailboxDesync(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		protocol, bye string
		attacks       []mailboxAttack
	}{{"pop3", "QUIT\r\n", pop3Attacks}, {"managesieve", "LOGOUT\r\n", sieveAttacks}} {
		r := newRecorder(t, c.protocol, nil)
		p := behindRecorder(t, r, c.protocol, map[string]any{"authentication": "1000/1h"})
		attempts := 0
		for i, attack := range c.attacks {
			from := fmt.Sprintf("127.84.%d.%d", 1+len(c.protocol), i+1)
			conn := mustOpen(t, p.Guess(c.protocol, from, "", ""))
			password := bed.Secrets.New(fmt.Sprintf("desync-%s-%d", c.protocol, i))
			plain := testbed.Plain("alice", password)
			text := strings.NewReplacer("WRONG", password, "%GUESS%", plain, "%LEN%", fmt.Sprint(len(plain))).Replace(attack.text)
			_, _ = conn.Write([]byte(text + c.bye))
			if said, err := conn.Rest(); err != nil || strings.Contains(said, " in\r\n") || strings.Contains(said, "\"in\"") {
				t.Errorf("%.80q: %.200q, %v", attack.text, said, err)
			}
			conn.Close()
			if n := r.judged(from); n != attack.guesses {
				commands, _ := r.heard(from)
				t.Errorf("%.80q: the server saw %d guesses, want %d: %.200q", attack.text, n, attack.guesses, commands)
			}
			if heard := strings.ToUpper(r.received(from)); strings.Contains(heard, "XCLIENT") || strings.Contains(heard, "XOIP") || strings.Contains(heard, "RIGHT") {
				t.Errorf("%.80q: the server received %.200q", attack.text, heard)
			}
			attempts += attack.guesses
		}
		testbed.Eventually(t, "every guess to be settled", func() bool {
			return p.Metric("mailreeve_attempts_total", nil) == float64(attempts)
		})
		if n := p.Metric("mailreeve_attempts_total", testbed.Labels{"outcome": "failure"}); n != float64(attempts) {
			t.Errorf("%s: %v failures, want %d", c.protocol, n, attempts)
		}
	}
}

// Behind a login of one's own there is no way back to guessing at others',
// though this server would go it; a script may say what it likes.
func TestAttackBehindASieveLogin(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, "managesieve", nil)
	p := behindRecorder(t, r, "managesieve", map[string]any{"authentication": "1000/1h"})
	// "right" is base64 of something, and this server likes it.
	conn := mustOpen(t, p.Guess("managesieve", "127.84.3.1", "", ""))
	if reply, err := conn.Sieve("AUTHENTICATE %q %q", "GSSAPI", "right"); !strings.HasPrefix(reply, "OK") {
		t.Fatalf("%q, %v", reply, err)
	}
	script := "UNAUTHENTICATE\r\n" + sieveHidden
	for _, c := range []struct{ say, want string }{
		{"UNAUTHENTICATE", "NO"}, {"unauthenticate", "NO"}, {" UNAUTHENTICATE", "NO"}, {"AUTHENTICATE \"PLAIN\" \"d3Jvbmc=\"", "NO"},
		{fmt.Sprintf("PUTSCRIPT \"x\" {%d+}\r\n%s", len(script), script), "OK"}, {"LISTSCRIPTS", "OK"},
	} {
		if reply, err := conn.Sieve("%s", c.say); err != nil || !strings.HasPrefix(reply, c.want) {
			t.Errorf("%.60q: %q, %v; want %s", c.say, reply, err, c.want)
		}
	}
	_, _ = conn.Write([]byte("GETSCRIPT \"x {16+}\r\nUNAUTHENTICATE\r\n\r\n" + sieveHidden))
	if _, err := conn.Rest(); err != nil {
		t.Error(err)
	}
	commands, _ := r.heard("127.84.3.1")
	if slices.Contains(commands, "UNAUTHENTICATE") || r.judged("127.84.3.1") != 1 {
		t.Errorf("the server heard %q", commands)
	}
}
