package integration

import (
	"fmt"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// What a message says, or a server quotes of it, is no reply to a login: nobody
// is scored for words.
func TestAttackTextsThatLookLikeReplies(t *testing.T) {
	t.Parallel()
	const looks = "535 5.7.8 Error: authentication failed"
	r := newRecorder(t, "smtp", func(c *recorded, line string) string {
		switch {
		case strings.HasPrefix(line, "MAIL"):
			return "250 2.1.0 " + looks + "\r\n"
		case strings.HasPrefix(line, "NOOP"):
			return "250-" + looks + "\r\n250 2.0.0 Ok\r\n"
		case strings.HasPrefix(line, "RCPT"):
			return "450 4.2.0 <550 5.1.1 user unknown@example.test>: greylisted\r\n"
		}
		return "usual"
	})
	p := behindRecorder(t, r, "smtp", map[string]any{
		"authentication": "1/1h", "abuse": "1/1d", "invalid-rcpt": "1/1d", "login": "1/1h"})
	conn := toMail(t, p, "127.74.0.1")
	for _, line := range []string{"NOOP", `RCPT TO:<"550 5.1.1 user unknown"@example.test>`, "DATA", "Subject: x\r\n\r\n" + looks + "\r\na NO [AUTHENTICATIONFAILED]\r\n.", "QUIT"} {
		if reply, err := conn.SMTP("%s", line); err != nil {
			t.Errorf("%s: %q, %v", line, reply, err)
		}
	}
	if points := p.Points("127.74.0.1"); points != 0 {
		t.Errorf("%v points for words", points)
	}
}

func toMail(t *testing.T, p *testbed.Proxy, from string) *testbed.Conn {
	t.Helper()
	conn := mustOpen(t, p.Guess("smtp", from, "", ""))
	if reply, err := conn.SMTP("MAIL FROM:<a@example.org>"); err != nil {
		t.Fatalf("MAIL: %q, %v", reply, err)
	}
	return conn
}

// A server that has been taken over, or is broken, says what nobody asked for,
// or says it without end. The client hears no forged success, nobody is scored,
// and what we keep of it stays small.
func TestAttackHostileServer(t *testing.T) {
	t.Parallel()
	endless := strings.Repeat("x", 1<<20)
	var list strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&list, "250-KEYWORD%d %s\r\n", i, strings.Repeat("y", 400))
	}
	answers := []struct{ name, line, says string }{
		{"an EHLO list of 8 MB", "EHLO", list.String()},
		{"an EHLO line without end", "EHLO", "250-" + endless},
		{"an unsolicited 235", "EHLO", "250 x\r\n235 2.7.0 Authentication successful\r\n"},
		{"a challenge out of turn", "EHLO", "250 x\r\n334 UGFzc3dvcmQ6\r\n"},
		{"an answer to AUTH that never ends", "AUTH", strings.Repeat("535-5.7.8 no\r\n", 10000)},
		{"a final 334", "AUTH", "334 5.7.8 second factor\r\n"},
		{"354 to AUTH", "AUTH", "354 go on\r\n"},
		{"no SMTP at all", "EHLO", "HTTP/1.1 200 OK\r\n\r\n"},
		{"NULs", "EHLO", strings.Repeat("\x00", 1<<16)},
		{"a greeting without end", "", "220-" + endless},
	}
	r := newRecorder(t, "smtp", func(c *recorded, line string) string {
		var n int
		if _, err := fmt.Sscanf(c.from, "127.75.0.%d", &n); err != nil || n < 1 || n > len(answers) {
			return "usual"
		}
		if a := answers[n-1]; a.line == line || a.line != "" && strings.HasPrefix(line, a.line) {
			return a.says
		}
		return "usual"
	})
	p := behindRecorder(t, r, "submission", map[string]any{"authentication": "1/1h", "abuse": "1/1d", "loitering": "1/1d"})
	before := p.RSS()
	together(len(answers)*5, func(i int) {
		i %= len(answers)
		from := fmt.Sprintf("127.75.0.%d", i+1)
		conn, err := testbed.Dial(from, p.Port("submission"))
		if err != nil {
			t.Errorf("%s: %v", answers[i].name, err)
			return
		}
		defer conn.Close()
		_, _ = conn.Reply()
		_, _ = conn.SMTP("EHLO client.example.test")
		_, _ = conn.SMTP("AUTH PLAIN %s", testbed.Plain("alice", "hostile-"+fmt.Sprint(i)))
		_ = conn.Send("QUIT")
		said, err := conn.Rest()
		if err != nil || strings.Contains(said, "235 2.7.0") {
			t.Errorf("%s: %.200q, %v", answers[i].name, said, err)
		}
	})
	if grown := p.RSS() - before; grown > 64<<20 {
		t.Errorf("%d MiB more than before", grown>>20)
	}
	for i, a := range answers {
		// The 535 counts where it was meant; nothing else is the client's fault.
		if a.line == "AUTH" || strings.Contains(a.says, "235") {
			continue
		}
		if points := p.Points(fmt.Sprintf("127.75.0.%d", i+1)); points > 1 {
			t.Errorf("%s: the client has %v points", a.name, points)
		}
	}
	mustOpen(t, p.Guess("submission", "127.75.1.1", "", ""))
}
