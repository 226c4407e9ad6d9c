package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// A step is what a client sends at once, and how it reads what that is
// answered.
type step struct {
	send string
	read func(conn *testbed.Conn) (string, error)
}

// A dialogue makes the steps of one connection. With the same random numbers
// it makes the same steps for either user, up to the login.
type dialogue func(r *rand.Rand, u testbed.User) []step

// differentialTime is how long each protocol is tried for.
const differentialTime = 10 * time.Second

// Random valid dialogues have the same answers through mailreeve as at the
// server, byte for byte, once the server has been dialled: what mailreeve says
// before that is its own. MAILREEVE_TEST_SEED repeats a run.
func TestAnswersAreTheServersByteForByte(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if text := os.Getenv("MAILREEVE_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("MAILREEVE_TEST_SEED=%d", seed)
	cfg := bed.Standard(nil)
	more := mailboxes(nil)
	cfg.Upstreams = append(cfg.Upstreams, more.Upstreams...)
	cfg.Listeners = append(cfg.Listeners, more.Listeners...)
	p := bed.NewProxy(t, cfg)
	for i, c := range []struct {
		listener string
		port     int // of the server, with a PROXY header
		dialogue dialogue
	}{
		{"submissions", bed.Postfix.SubmissionProxy, smtpDialogue},
		{"imaps", bed.Dovecot.IMAPProxy, imapDialogue},
		{"pop3s", bed.Dovecot.POP3Proxy, pop3Dialogue},
		{"sieve", bed.Dovecot.SieveProxy, sieveDialogue},
	} {
		t.Run(c.listener, func(t *testing.T) {
			t.Parallel()
			straight, behind := bed.Users[10+2*i], bed.Users[11+2*i]
			rounds, end := uint64(0), time.Now().Add(differentialTime)
			for ; rounds == 0 || time.Now().Before(end); rounds++ {
				body := message("one more", "to read")
				bed.Put(t, straight.Login, body)
				bed.Put(t, behind.Login, body)
				want := play(t, withHeader(t, "198.51.100.70", c.port), c.listener,
					c.dialogue(rand.New(rand.NewPCG(seed, rounds)), straight), straight)
				g := p.Guess(c.listener, fmt.Sprintf("127.75.0.%d", i+1), "", "")
				got := play(t, mustSecure(t, g), c.listener, c.dialogue(rand.New(rand.NewPCG(seed, rounds)), behind), behind)
				if got != want {
					t.Fatalf("round %d: %s\nthrough mailreeve:\n%s\nstraight:\n%s", rounds, firstDifference(got, want), got, want)
				}
			}
			t.Logf("%d dialogues", rounds)
		})
	}
}

// firstDifference shows where two texts part.
func firstDifference(got, want string) string {
	is, was := strings.Split(got, "\n"), strings.Split(want, "\n")
	n := 0
	for n < min(len(is), len(was))-1 && is[n] == was[n] {
		n++
	}
	return fmt.Sprintf("line %d is %q, want %q", n+1, is[n], was[n])
}

// mustSecure connects and starts TLS, but reads nothing that comes within it.
func mustSecure(t *testing.T, g testbed.Guess) *testbed.Conn {
	t.Helper()
	conn, err := testbed.Dial(g.From, g.Port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if g.TLS == "starttls" { // of ManageSieve
		for _, say := range []func() (string, error){conn.SieveReply,
			func() (string, error) { return conn.Sieve("STARTTLS") }} {
			if line, err := say(); err != nil || !strings.HasPrefix(line, "OK") {
				t.Fatalf("%q, %v", line, err)
			}
		}
	}
	if err := conn.Handshake(testbed.AnyTLS()); err != nil {
		t.Fatal(err)
	}
	return conn
}

// play runs a dialogue to its end and returns all that was said, without the
// greeting and without what must differ.
func play(t *testing.T, conn *testbed.Conn, listener string, steps []step, u testbed.User) string {
	t.Helper()
	defer conn.Close()
	greeting := (*testbed.Conn).Reply
	if listener == "sieve" {
		greeting = (*testbed.Conn).SieveReply
	}
	if line, err := greeting(conn); err != nil {
		t.Fatalf("greeting: %q, %v", line, err)
	}
	var said strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&said, "C: %q\n", s.send)
		if _, err := conn.Write([]byte(s.send)); err != nil {
			fmt.Fprintf(&said, "(gone)\n")
			break
		}
		answer, err := s.read(conn)
		said.WriteString(answer)
		if err != nil {
			fmt.Fprintf(&said, "(%v)\n", err)
			break
		}
	}
	rest, err := conn.Rest()
	if err != nil {
		t.Fatalf("%v after:\n%s", err, said.String())
	}
	said.WriteString(rest)
	text := strings.ReplaceAll(said.String(), u.Login, "user@example.test")
	text = strings.ReplaceAll(text, u.Password, "PASSWORD")
	for _, d := range mayDiffer {
		text = d.pattern.ReplaceAllString(text, d.by)
	}
	return text
}

// mayDiffer is what two dialogues with the same server differ in.
var mayDiffer = [...]struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`AHVzZX[\w+/=]+`), "PLAIN"}, // "\0use…"
	{regexp.MustCompile(`queued as \w+`), "queued as ID"},
	{regexp.MustCompile(`\[\d+\.\d+\.\d+\.\d+\]`), "[ADDRESS]"},
	{regexp.MustCompile(`\(\d+\.\d+ \+ [^)]* secs\)`), "(TIME)"},
	{regexp.MustCompile(`(UIDVALIDITY|APPENDUID) \d+`), "$1 N"},
	{regexp.MustCompile(`(?m)^(\+OK )?(\d+) [0-9a-f]{16}\r$`), "${1}$2 UIDL\r"},
	// mailreeve's own TLS is the only one that is offered, and it is up.
	{regexp.MustCompile(` STARTTLS|(?m)^"STARTTLS"\r\n|(?m)^STLS\r\n`), ""},
}

// lines reads lines until last says that it has seen the last.
func lines(conn *testbed.Conn, last func(line string) bool) (string, error) {
	var said strings.Builder
	for {
		line, err := conn.Line()
		if err != nil {
			return said.String(), err
		}
		said.WriteString(line + "\r\n")
		if last(line) {
			return said.String(), nil
		}
	}
}

// pick returns one of several.
func pick[T any](r *rand.Rand, of ...T) T {
	return of[r.IntN(len(of))]
}

// wrongPassword is one that nobody tried before.
func wrongPassword(r *rand.Rand) string {
	return bed.Secrets.Note(fmt.Sprintf("Wrong%x", r.Uint64()))
}

// randomText is a message with what is dangerous in it.
func randomText(r *rand.Rand) string {
	text := "Subject: random\r\n\r\n"
	for range r.IntN(12) {
		text += pick(r, "hello", "535 5.7.8 Error: authentication failed", "QUIT", "a NO [AUTHENTICATIONFAILED]",
			strings.Repeat("long ", r.IntN(180)), "* BYE", "-ERR [AUTH]", "", "{5}", `OK "x"`, "x.", "\xc3\xa4 \xff") + "\r\n"
	}
	return text
}
