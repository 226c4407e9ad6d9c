package integration

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// A liar speaks to a server with pieces of dialogues, whole, broken and in any
// order, with guesses among them. No password is guessed twice.
type liar struct {
	*rand.Rand
	protocol string
	guesses  int
	seed     uint64
}

const liarLogin = "user38@example.test"

func (l *liar) password() string {
	l.guesses++
	return fmt.Sprintf("lie%x-%d", l.seed, l.guesses)
}

func (l *liar) plain() string { return testbed.Plain(liarLogin, l.password()) }

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// piece is something that a client of the protocol might say.
func (l *liar) piece() string {
	switch l.protocol {
	case "imap":
		return l.imapPiece()
	case "pop3":
		return l.pop3Piece()
	case "managesieve":
		return l.sievePiece()
	}
	return l.smtpPiece()
}

// literal announces what comes behind it, often wrongly.
func (l *liar) literal(s string) string {
	return fmt.Sprintf("{%d%s}\r\n%s", len(s)+pick(l.Rand, 0, 0, 0, 0, 1, -1), pick(l.Rand, "+", "+", "", "-"), s)
}

func (l *liar) imapPiece() string {
	tag := fmt.Sprintf("t%d", l.IntN(6))
	switch l.IntN(14) {
	case 0, 1:
		return fmt.Sprintf("%s LOGIN %s %s\r\n", tag, liarLogin, l.password())
	case 2:
		return fmt.Sprintf("%s LOGIN %q %q\r\n", tag, liarLogin, l.password())
	case 3, 4:
		return fmt.Sprintf("%s LOGIN %s %s\r\n", tag, l.literal(liarLogin), l.literal(l.password()))
	case 5:
		return fmt.Sprintf("%s AUTHENTICATE PLAIN %s\r\n", tag, l.plain())
	case 6:
		return fmt.Sprintf("%s AUTHENTICATE PLAIN\r\n%s\r\n", tag, l.plain())
	case 7:
		return fmt.Sprintf("%s AUTHENTICATE LOGIN\r\n%s\r\n%s\r\n", tag, encoded(liarLogin), encoded(l.password()))
	case 8:
		return tag + " AUTHENTICATE PLAIN\r\n*\r\n"
	case 9:
		return fmt.Sprintf("%s ID (%q %s)\r\n", tag, "name", l.literal("x LOGIN a b\r\n"))
	}
	return tag + pick(l.Rand, " NOOP\r\n", " CAPABILITY\r\n", " ID NIL\r\n", " SELECT INBOX\r\n", " NONSENSE\r\n", " ENABLE X\r\n", "\r\n", " LOGIN x\r\n")
}

func (l *liar) pop3Piece() string {
	switch l.IntN(10) {
	case 0, 1, 2:
		return fmt.Sprintf("USER %s\r\nPASS %s\r\n", liarLogin, l.password())
	case 3:
		return fmt.Sprintf("PASS %s\r\n", l.password())
	case 4:
		return fmt.Sprintf("AUTH PLAIN %s\r\n", l.plain())
	case 5:
		return fmt.Sprintf("AUTH PLAIN\r\n%s\r\n", l.plain())
	case 6:
		return fmt.Sprintf("AUTH LOGIN\r\n%s\r\n%s\r\n", encoded(liarLogin), encoded(l.password()))
	}
	return pick(l.Rand, "CAPA\r\n", "NOOP\r\n", "USER "+liarLogin+"\r\n", "AUTH\r\n", "AUTH PLAIN\r\n*\r\n", "UTF8\r\n", "LANG\r\n", "STAT\r\n", "*\r\n")
}

func (l *liar) sievePiece() string {
	switch l.IntN(10) {
	case 0, 1:
		return fmt.Sprintf("AUTHENTICATE \"PLAIN\" %q\r\n", l.plain())
	case 2, 3:
		return fmt.Sprintf("AUTHENTICATE %s %s\r\n", pick(l.Rand, `"PLAIN"`, l.literal("PLAIN")), l.literal(l.plain()))
	case 4:
		return fmt.Sprintf("AUTHENTICATE \"PLAIN\"\r\n%s\r\n", pick(l.Rand, `"`+l.plain()+`"`, l.literal(l.plain())))
	case 5:
		return fmt.Sprintf("AUTHENTICATE \"LOGIN\"\r\n%q\r\n%q\r\n", encoded(liarLogin), encoded(l.password()))
	case 6:
		return "NOOP " + l.literal(fmt.Sprintf("NO \"x\"\r\nAUTHENTICATE \"PLAIN\" %q\r\n", l.plain())) + "\r\n"
	}
	return pick(l.Rand, "CAPABILITY\r\n", "NOOP\r\n", "NOOP \"x\"\r\n", "AUTHENTICATE \"PLAIN\"\r\n\"*\"\r\n", "LISTSCRIPTS\r\n", "\"*\"\r\n", "CAPABILITY {3+}\r\nxyz\r\n")
}

func (l *liar) smtpPiece() string {
	auth := func() string { return fmt.Sprintf("AUTH PLAIN %s\r\n", l.plain()) }
	switch l.IntN(10) {
	case 0, 1, 2:
		return auth()
	case 3:
		return fmt.Sprintf("AUTH PLAIN\r\n%s\r\n", l.plain())
	case 4:
		return fmt.Sprintf("AUTH LOGIN\r\n%s\r\n%s\r\n", encoded(liarLogin), encoded(l.password()))
	case 5:
		return fmt.Sprintf("AUTH LOGIN %s\r\n%s\r\n", encoded(liarLogin), encoded(l.password()))
	case 6:
		return "DATA\r\n" + pick(l.Rand, "\r\n.\r\n", "\n.\n", "\r.\r", "\n.\r\n") + auth() + pick(l.Rand, ".\r\n", "\r\n.\r\n", "")
	case 7:
		text := auth()
		return fmt.Sprintf("BDAT %d%s\r\n%s", len(text)+pick(l.Rand, 0, 0, 1, -1), pick(l.Rand, "", " LAST", " LAST x"), text)
	}
	return pick(l.Rand, "EHLO x.example.test\r\n", "MAIL FROM:<a@example.org>\r\n", "RCPT TO:<b@example.test>\r\n", "RSET\r\n", "NOOP\r\n", "*\r\n", "AUTH PLAIN\r\n*\r\n", "VRFY x\r\n")
}

// dialogue is some pieces, of which a few are broken.
func (l *liar) dialogue() []byte {
	var said []byte
	for range 2 + l.IntN(10) {
		piece := []byte(l.piece())
		if at := l.IntN(len(piece)); l.IntN(6) == 0 {
			switch l.IntN(4) {
			case 0:
				piece = append(piece[:at], piece[at+1:]...)
			case 1:
				piece[at] = pick(l.Rand, byte('\r'), '\n', 0, ' ', '"', '{', '}', '\\', '+', '=')
			case 2:
				piece = append(piece[:at:at], append([]byte{pick(l.Rand, byte('\r'), '\n', ' ', '"', '\\')}, piece[at:]...)...)
			case 3:
				piece = piece[:at]
			}
		}
		said = append(said, piece...)
	}
	return said
}

// lie says one dialogue, whether it is listened to or not.
func (l *liar) lie(t *testing.T, g testbed.Guess) {
	conn, err := g.Open()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(conn.Patience))
	_, _ = conn.Write(l.dialogue())
	conn.Patience = 300 * time.Millisecond // most end in the middle of something
	_, _ = conn.Rest()
}

func liarAddress(listener string, n int) string {
	return fmt.Sprintf("127.85.%d.%d", len(listener), n+1)
}

// However a client lies, the real servers have judged no more passwords than we
// have counted as wrong, and let nobody in.
func TestAttackRealServer(t *testing.T) {
	t.Parallel()
	cfg := bed.Standard(map[string]any{"authentication": "4000/1h"})
	more := mailboxes(nil)
	cfg.Upstreams, cfg.Listeners = append(cfg.Upstreams, more.Upstreams...), append(cfg.Listeners, more.Listeners...)
	for i := range cfg.Listeners {
		cfg.Listeners[i].TLS, cfg.Listeners[i].PlaintextAuth = "implicit", ""
	}
	p := bed.NewProxy(t, cfg)
	const liars, times = 6, 20
	for _, listener := range []string{"imaps", "pop3s", "sieve", "submissions"} {
		judged := func() (n int) {
			log := bed.Dovecot.FlushedLog(t)
			for i := range liars {
				n += log.Count(failedLogin(liarAddress(listener, i)))
			}
			return n
		}
		counted := func() int { return int(p.Metric("mailreeve_attempts_total", testbed.Labels{"outcome": "failure"})) }
		judgedBefore, countedBefore := judged(), counted()
		seed := rand.Uint64()
		together(liars, func(n int) {
			g := p.Guess(listener, liarAddress(listener, n), "", "")
			l := &liar{Rand: rand.New(rand.NewPCG(seed, uint64(n))), protocol: g.Protocol, seed: seed + uint64(n)}
			for range times {
				l.lie(t, g)
			}
		})
		testbed.Eventually(t, "all to be settled", func() bool {
			return p.Metric(testbed.MetricConnections, nil) == 0 && p.Metric("mailreeve_attempts_in_flight", nil) == 0
		})
		judgedNow, countedNow := judged()-judgedBefore, counted()-countedBefore
		if judgedNow == 0 || judgedNow > countedNow {
			t.Errorf("%s, seed %d: Dovecot judged %d guesses, counted are %d", listener, seed, judgedNow, countedNow)
		}
	}
	if n := p.Metric("mailreeve_attempts_total", testbed.Labels{"outcome": "success"}); n > 0 {
		t.Errorf("%v logins succeeded", n)
	}
	if lines := bed.Dovecot.Log.Lines(`Login: .*rip=127\.85\.`); len(lines) > 0 {
		t.Errorf("Dovecot let in: %s", strings.Join(lines[:1], ""))
	}
}
