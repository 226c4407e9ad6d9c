package integration

import (
	"bufio"
	"bytes"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/pires/go-proxyproto"
)

// A recorder is a server that writes down what it believes it was told. It
// believes as much as any server might: a bare CR or LF ends a line, and a dot
// between any line ends, with NULs in between, ends a message. What it believes
// and we do not is an attack that worked.
type recorder struct {
	port int

	// reply answers a command of a client that is no probe; "" closes. nil
	// answers as an ordinary server does.
	reply func(c *recorded, line string) string

	mu    sync.Mutex
	conns []*recorded
	wait  sync.WaitGroup
}

// A recorded is one connection of a client to a recorder. Read its fields
// through the recorder's methods.
type recorded struct {
	net.Conn
	r        *recorder
	from     string
	speaks   string // "smtp", "imap", "pop3", "managesieve"
	probe    bool
	raw      []byte
	commands []string
	messages int
	judged   int // credentials that it believes it was given

	pending []byte
	// begun is a ManageSieve command whose literal has come; nil if none has.
	begun *string
}

// newRecorder starts one that speaks a protocol: IMAP, POP3, ManageSieve, or else
// SMTP.
func newRecorder(t *testing.T, protocol string, reply func(c *recorded, line string) string) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{port: l.Addr().(*net.TCPAddr).Port, reply: reply}
	r.wait.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c := &recorded{Conn: conn, r: r, speaks: protocol}
			r.wait.Go(c.serve)
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		r.wait.Wait()
	})
	return r
}

func (c *recorded) serve() {
	defer c.Close()
	in := bufio.NewReader(c.Conn)
	header, err := proxyproto.Read(in)
	if err != nil {
		return
	}
	c.from = header.SourceAddr.(*net.TCPAddr).IP.String()
	c.probe = c.from == "127.0.0.1"
	c.r.mu.Lock()
	c.r.conns = append(c.r.conns, c)
	c.r.mu.Unlock()
	if !c.say(c.answer("")) {
		return
	}
	var data, chunk bool
	var left int
	for buf := make([]byte, 4096); ; {
		n, err := in.Read(buf)
		if err != nil {
			return
		}
		c.r.mu.Lock()
		c.raw = append(c.raw, buf[:n]...)
		c.r.mu.Unlock()
		c.pending = append(c.pending, buf[:n]...)
		for len(c.pending) > 0 {
			switch {
			case left > 0:
				n := min(left, len(c.pending))
				left -= n
				c.pending = c.pending[n:]
				if left == 0 && chunk {
					c.message()
					if !c.say("250 2.0.0 Ok\r\n") {
						return
					}
				}
				continue
			case data:
				end := lenientEnd.FindIndex(append([]byte("\n"), c.pending...))
				if end == nil {
					goto more
				}
				c.pending = c.pending[end[1]-1:]
				data = false
				c.message()
				if !c.say("250 2.0.0 Ok\r\n") {
					return
				}
				continue
			}
			line, rest, ok := lenientLine(c.pending)
			if !ok {
				goto more
			}
			c.pending = rest
			c.note(line)
			answer := c.answer(line)
			c.judge(answer)
			if answer == "" || answer != silence && !c.say(answer) {
				return
			}
			if strings.Contains(strings.ToUpper(answer), "BYE") {
				return
			}
			data = strings.HasPrefix(answer, "354")
			left, chunk = c.octets(line)
		}
	more:
	}
}

// silence as a reply says nothing, and stays.
const silence = "silence"

// lenientEnd is every end of a message that some server has been known to take.
var lenientEnd = regexp.MustCompile(`(?:\r\n|\r|\n)\x00*\.\x00*(?:\r\n|\r|\n)`)

func lenientLine(b []byte) (line string, rest []byte, ok bool) {
	at := bytes.IndexAny(b, "\r\n")
	switch {
	case at < 0 || b[at] == '\r' && at+1 == len(b):
		return "", b, false
	case b[at] == '\r' && b[at+1] == '\n':
		return string(b[:at]), b[at+2:], true
	}
	return string(b[:at]), b[at+1:], true
}

// octets tells how many octets follow a line unread: those of a chunk, or of
// an IMAP literal.
func (c *recorded) octets(line string) (n int, chunk bool) {
	if c.speaks == "pop3" {
		return 0, false
	}
	if c.speaks == "imap" || c.speaks == "managesieve" {
		if m := regexp.MustCompile(`\{(\d+)\+?\}$`).FindStringSubmatch(line); m != nil {
			n, _ = strconv.Atoi(m[1])
		}
		return n, false
	}
	f := strings.Fields(strings.ToUpper(line))
	if len(f) > 1 && f[0] == "BDAT" {
		n, _ = strconv.Atoi(f[1])
	}
	return n, n > 0
}

func (c *recorded) say(text string) bool {
	_, err := c.Write([]byte(text))
	return err == nil
}

func (c *recorded) note(line string) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.commands = append(c.commands, line)
}

// judge counts an answer to a credential, of a recorder of POP3 or ManageSieve.
func (c *recorded) judge(answer string) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if strings.Contains(answer, "Authentication failed") || strings.HasSuffix(answer, " in\r\n") || strings.HasSuffix(answer, "\"in\"\r\n") {
		c.judged++
	}
}

func (c *recorded) message() {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.messages++
}

// answer gives the reply to a line, "" standing for the connection itself.
func (c *recorded) answer(line string) string {
	if c.r.reply != nil && !c.probe {
		if answer := c.r.reply(c, line); answer != "usual" {
			return answer
		}
	}
	switch c.speaks {
	case "imap":
		return c.answerIMAP(line)
	case "pop3":
		return answerPOP3(line)
	case "managesieve":
		return c.answerSieve(line)
	}
	verb, rest, _ := strings.Cut(strings.ToUpper(line), " ")
	switch verb {
	case "":
		return "220 recorder.example.test ESMTP\r\n"
	case "EHLO":
		return "250-recorder.example.test\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 AUTH PLAIN LOGIN\r\n"
	case "DATA":
		return "354 go on\r\n"
	case "QUIT":
		return "221 2.0.0 Bye\r\n"
	case "BDAT":
		if strings.HasPrefix(rest, "0") {
			return "250 2.0.0 Ok\r\n"
		}
		return silence // its octets come first
	case "AUTH":
		if _, initial, has := strings.Cut(rest, " "); !has || initial == "" {
			return "334 \r\n"
		}
		return "535 5.7.8 Error: authentication failed\r\n"
	}
	return "250 2.0.0 Ok\r\n"
}

func (c *recorded) answerIMAP(line string) string {
	const caps = "CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID AUTH=PLAIN COMPRESS=DEFLATE UNAUTHENTICATE"
	if line == "" {
		return "* OK [" + caps + "] recorder ready\r\n"
	}
	tag, rest, _ := strings.Cut(line, " ")
	verb, _, _ := strings.Cut(strings.ToUpper(rest), " ")
	switch {
	case verb == "CAPABILITY":
		return "* " + caps + "\r\n" + tag + " OK done\r\n"
	case verb == "LOGOUT":
		return "* BYE\r\n" + tag + " OK done\r\n"
	case verb == "LOGIN" && strings.Contains(rest, "right"):
		return tag + " OK [" + caps + "] in\r\n"
	case verb == "LOGIN" || verb == "AUTHENTICATE":
		return tag + " NO [AUTHENTICATIONFAILED] no\r\n"
	}
	return tag + " OK done\r\n"
}

// heard gives all commands that came from a client, over all its connections,
// and how many messages.
func (r *recorder) heard(from string) (commands []string, messages int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		if c.from == from {
			commands = append(commands, c.commands...)
			messages += c.messages
		}
	}
	return commands, messages
}

// judged tells how many credentials it believes to have been given by a client.
func (r *recorder) judged(from string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		if c.from == from {
			n += c.judged
		}
	}
	return n
}

// received gives all bytes that came from a client.
func (r *recorder) received(from string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []byte
	for _, c := range r.conns {
		if c.from == from {
			all = append(all, c.raw...)
		}
	}
	return string(all)
}
