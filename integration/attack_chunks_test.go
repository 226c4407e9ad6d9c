package integration

import (
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"mailreeve/integration/testbed"
)

// A chunk that its server does not take for one is how a guess could get past
// us: as octets of BDAT nobody would look at it. Each is what is sent, in writes
// of its own, up to where the guess would be a command.
var chunksThatHideCommands = map[string][]string{
	"a size of more than 32 bits": {"EHLO x\r\n", "MAIL FROM:<a@example.org>\r\n", "RCPT TO:<alice@example.test>\r\n",
		"BDAT 4294967297 LAST\r\nx"},
	"a size of more than 32 bits, at once": {"EHLO x\r\n", "MAIL FROM:<a@example.org>\r\n", "RCPT TO:<alice@example.test>\r\n",
		"BDAT 4294967297 LAST\r\nGUESS"},
	"behind HELO":         {"HELO x\r\n", "BDAT 1000 LAST\r\n", "EHLO x\r\n"},
	"before any hello":    {"BDAT 1000 LAST\r\n", "EHLO x\r\n"},
	"without a recipient": {"EHLO x\r\n", "MAIL FROM:<a@example.org>\r\n", "BDAT 1000 LAST\r\nGUESS"},
	"with another command between chunks": {"EHLO x\r\n", "MAIL FROM:<a@example.org>\r\n", "RCPT TO:<alice@example.test>\r\n",
		"BDAT 1\r\nx", "VRFY x\r\n", "BDAT 1000 LAST\r\n", "RSET\r\n"},
}

// hideGuess tries each of them, from addresses of a network, and calls judged to
// learn whether the server has judged a password of that address.
func hideGuess(t *testing.T, p *testbed.Proxy, network string, judged func(from string) bool) {
	t.Helper()
	for i, name := range slices.Sorted(maps.Keys(chunksThatHideCommands)) {
		from := network + "." + strconv.Itoa(i+1)
		conn, err := testbed.Dial(from, p.Port("smtp"))
		if err != nil {
			t.Fatal(err)
		}
		said, _ := conn.Reply()
		conn.Patience = time.Second // swallowed octets are not answered
		guess := "AUTH PLAIN " + testbed.Plain("alice", "hidden") + "\r\n"
		for _, part := range append(slices.Clone(chunksThatHideCommands[name]), guess) {
			part = strings.ReplaceAll(part, "GUESS", guess)
			if _, err := conn.Write([]byte(part)); err != nil {
				break
			}
			reply, _ := conn.Reply()
			said += "\n" + reply
		}
		conn.Close()
		if judged(from) {
			t.Errorf("%s: the server has judged a password; the client was told %q", name, said)
		}
	}
}

// A real Exim reads a chunk's size into 32 bits, and takes a chunk for commands
// where it has not offered CHUNKING, as to a client that says HELO, or where
// another command came between two chunks.
func TestAttackGuessesInChunksForExim(t *testing.T) {
	t.Parallel()
	exim := bed.NewExim(t)
	p := before(t, "smtp", exim.Port, "")
	hideGuess(t, p, "127.71.5", func(from string) bool {
		log, err := os.ReadFile(exim.Dir + "/spool/mainlog")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(log), "["+from+"]: 535")
	})
}

// A real go-smtp, of which maddy is made, refuses a size of more than 32 bits
// and takes the octets for commands.
func TestAttackGuessesInChunksForGoSMTP(t *testing.T) {
	t.Parallel()
	var judged atomic.Int64
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &countingSession{&judged}, nil }))
	server.AllowInsecureAuth = true
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	defer func() {
		server.Close()
		<-done
	}()
	p := before(t, "smtp", l.Addr().(*net.TCPAddr).Port, "none")
	hideGuess(t, p, "127.71.6", func(string) bool { return judged.Swap(0) > 0 })
}

// A countingSession counts the passwords that it is asked about, takes any
// message, and knows nobody.
type countingSession struct{ judged *atomic.Int64 }

func (s *countingSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *countingSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, _, _ string) error {
		s.judged.Add(1)
		return errors.New("wrong")
	}), nil
}

func (s *countingSession) Mail(string, *smtp.MailOptions) error { return nil }
func (s *countingSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s *countingSession) Reset()                               {}
func (s *countingSession) Logout() error                        { return nil }

func (s *countingSession) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
