package integration

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// Guesses that are sent all at once reach the server one after the other, and
// no more of them than the limit allows: the ban falls before the next is
// looked at.
func TestAttackPipelinedGuesses(t *testing.T) {
	t.Parallel()
	const limit = 3
	for i, c := range []struct {
		protocol, verb string
		guess          func(n int, password string) string
	}{
		{"submission", "AUTH PLAIN", func(_ int, password string) string { return "AUTH PLAIN " + testbed.Plain("alice", password) }},
		{"imap", " LOGIN ", func(n int, password string) string { return fmt.Sprintf("t%d LOGIN alice %s", n, password) }},
		{"pop3", "PASS ", func(_ int, password string) string { return "USER alice\r\nPASS " + password }},
		{"managesieve", "AUTHENTICATE", func(_ int, password string) string {
			return fmt.Sprintf("AUTHENTICATE \"PLAIN\" %q", testbed.Plain("alice", password))
		}},
	} {
		r := newRecorder(t, c.protocol, nil)
		p := behindRecorder(t, r, c.protocol, map[string]any{"authentication": fmt.Sprintf("%d/1h", limit)})
		from := fmt.Sprintf("127.73.0.%d", i+1)
		conn := mustOpen(t, p.Guess(c.protocol, from, "", ""))
		var all strings.Builder
		for n := range 50 {
			fmt.Fprintf(&all, "%s\r\n", c.guess(n, bed.Secrets.New(fmt.Sprintf("pipelined-%s%d", c.protocol, n))))
		}
		_, _ = conn.Write([]byte(all.String()))
		if _, err := conn.Rest(); err != nil {
			t.Errorf("%s: %v", c.protocol, err)
		}
		if n := strings.Count(r.received(from), c.verb); n != limit {
			t.Errorf("%s: the server was asked %d times, want %d", c.protocol, n, limit)
		}
		mustBan(t, p, from)
	}
}

// Behind a challenge the client's next line is a response, whatever it looks
// like; what no response can be never reaches the server.
func TestAttackAuthContinuation(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, "smtp", func(c *recorded, line string) string {
		switch {
		case line == "*":
			return "501 5.7.0 aborted\r\n"
		case strings.HasPrefix(line, "AUTH"):
			return "334 \r\n"
		case line == "" || strings.HasPrefix(line, "EHLO") || strings.HasPrefix(line, "MAIL"):
			return "usual"
		}
		return "535 5.7.8 no\r\n"
	})
	p := behindRecorder(t, r, "submission", map[string]any{"authentication": "1000/1h"})
	guess := base64.StdEncoding.EncodeToString([]byte("\x00alice\x00" + bed.Secrets.New("continuation")))
	for i, response := range []string{
		"MAIL FROM:<smuggled@example.org>", "EHLO again", "AUTH PLAIN " + guess, "!!!!", "=", strings.Repeat("A", 20000),
	} {
		from := fmt.Sprintf("127.73.1.%d", i+1)
		conn := mustOpen(t, p.Guess("submission", from, "", ""))
		if reply, err := conn.SMTP("AUTH PLAIN"); !strings.HasPrefix(reply, "334") {
			t.Fatalf("AUTH PLAIN: %q, %v", reply, err)
		}
		reply, _ := conn.SMTP("%s", response)
		if strings.HasPrefix(reply, "2") {
			t.Errorf("%.40q as a response: %q", response, reply)
		}
		conn.Close()
		want := []string{"EHLO client.example.test", "AUTH PLAIN", "*"}
		commands, _ := r.heard(from)
		if len(commands) > 3 || !slices.Equal(commands, want[:len(commands)]) {
			t.Errorf("%.40q as a response: the server heard %.200q", response, commands)
		}
	}
}

// After a login there is no second one, no layer and no way back behind which
// guesses would go unseen, though this server would take them all.
func TestAttackBehindALogin(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, "imap", nil)
	p := behindRecorder(t, r, "imap", map[string]any{"authentication": "1000/1h"})
	conn := mustOpen(t, p.Guess("imap", "127.73.2.1", "", ""))
	for _, d := range []struct{ say, want string }{
		{"COMPRESS DEFLATE", "x NO"}, {"UNAUTHENTICATE", "x BAD"},
		{"LOGIN alice right", "x OK"},
		{"UNAUTHENTICATE", "x BAD"}, {"COMPRESS DEFLATE", "x NO"}, {"LOGIN bob right", "x BAD"},
		{"AUTHENTICATE PLAIN AGJvYgByaWdodA==", "x BAD"}, {"STARTTLS", "x BAD"}, {"NOOP", "x OK"},
	} {
		if line, err := conn.IMAP("x", "%s", d.say); err != nil || !strings.HasPrefix(line, d.want) {
			t.Errorf("%s: %q, %v; want %s", d.say, line, err, d.want)
		}
	}
	commands, _ := r.heard("127.73.2.1")
	if want := []string{"x LOGIN alice right", "x NOOP"}; !slices.Equal(commands, want) {
		t.Errorf("the server heard %q, want %q", commands, want)
	}

	s := newRecorder(t, "smtp", func(c *recorded, line string) string {
		if strings.HasPrefix(line, "AUTH") {
			return "235 2.7.0 in\r\n"
		}
		return "usual"
	})
	q := behindRecorder(t, s, "submission", map[string]any{"authentication": "1000/1h"})
	mail := mustLogin(t, q.Guess("submission", "127.73.2.2", "alice", bed.Secrets.New("behind")))
	reply, err := mail.SMTP("AUTH PLAIN %s", testbed.Plain("bob", bed.Secrets.New("behind2")))
	if err != nil {
		t.Fatal(err)
	}
	// A second AUTH is either refused or asked about: never unseen.
	if strings.HasPrefix(reply, "235") && q.Metric("mailreeve_attempts_total", nil) < 2 {
		t.Errorf("a second AUTH passed unseen: %q", reply)
	}
}

// Tags that are pending, literals that hide commands, literals that two would
// count differently: what is no login for us is none for the server.
func TestAttackIMAPDesync(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, "imap", nil)
	p := behindRecorder(t, r, "imap", map[string]any{"authentication": "1000/1h"})
	const hidden = "h LOGIN alice right\r\n"
	for i, attack := range []string{
		"a NOOP\r\na LOGIN alice wrong\r\n",
		"a ID {22+}\r\n" + hidden + "\r\n",
		"a NONSENSE {21+}\r\n" + hidden + "\r\n",
		"a LOGIN alice {21+}\r\n" + hidden + " {21+}\r\n" + hidden + "\r\n",
		"a LOGIN \"ali{21+}\r\n" + hidden + "\r\n",
		"a LOGIN alice {-1}\r\n" + hidden,
		"a LOGIN alice {+21}\r\n" + hidden,
		"a LOGIN alice {99999999999999999999+}\r\n" + hidden,
		"a CAPABILITY ~{21+}\r\n" + hidden,
		"a SELECT {21+}\n" + hidden,
		"* LOGIN alice right\r\n",
		"+ LOGIN alice right\r\n",
		"a LOGIN alice\rh LOGIN alice right\r\n",
	} {
		from := fmt.Sprintf("127.73.3.%d", i+1)
		conn := mustOpen(t, p.Guess("imap", from, "", ""))
		_, _ = conn.Write([]byte(attack + "z LOGOUT\r\n"))
		if _, err := conn.Rest(); err != nil {
			t.Errorf("%q: %v", attack, err)
		}
		commands, _ := r.heard(from)
		for _, command := range commands {
			if strings.HasSuffix(command, "right") {
				t.Errorf("%q: the server heard %q", attack, commands)
			}
		}
	}
	if n := p.Metric(testbed.MetricEvents, testbed.Labels{"kind": "bad-command"}); n == 0 {
		t.Error("no event")
	}
}

// A client may not speak with our voice: to say on whose behalf it comes.
func TestAttackForwarding(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		protocol string
		lines    []string
	}{
		{"smtp", []string{
			"XCLIENT ADDR=127.0.0.1 LOGIN=root", "xclient ADDR=127.0.0.1", "XFORWARD ADDR=127.0.0.1",
			"XCLIENT\tADDR=127.0.0.1", " XCLIENT ADDR=127.0.0.1", "NOOP\rXCLIENT ADDR=127.0.0.1",
		}},
		{"imap", []string{
			`a ID ("x-originating-ip" "127.0.0.1")`, `a ID ("name" "x" "X-Connected-Ip" "127.0.0.1")`,
			`a ID ("x\-originating-ip" "127.0.0.1")`, "a ID (\"name\" {16+}\r\nx-originating-ip \"1\")", `a XCLIENT ADDR=127.0.0.1`,
		}},
	} {
		r := newRecorder(t, c.protocol, nil)
		p := behindRecorder(t, r, c.protocol, nil)
		from := "127.73.4.1"
		for _, line := range c.lines {
			conn := mustOpen(t, p.Guess(c.protocol, from, "", ""))
			end := "QUIT"
			if c.protocol == "imap" {
				end = "b CAPABILITY\r\nz LOGOUT"
			}
			_, _ = conn.Write([]byte(line + "\r\n" + end + "\r\n"))
			if _, err := conn.Rest(); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
		heard := strings.ToLower(r.received(from))
		for _, word := range []string{"xclient", "xforward", "x-", `x\-`} {
			if strings.Contains(heard, word) {
				t.Errorf("%s: the server received %q", c.protocol, heard)
			}
		}
	}
}
