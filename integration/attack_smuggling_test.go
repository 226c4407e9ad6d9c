package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// behindRecorder is mailreeve in front of a recorder.
func behindRecorder(t *testing.T, r *recorder, protocol string, rules map[string]any) *testbed.Proxy {
	t.Helper()
	cfg := testbed.InFront(protocol, "none", r.port, rules)
	cfg.Listeners[0].PlaintextAuth = "yes"
	return bed.NewProxy(t, cfg)
}

// forgedEnds are ends of a message to some server and none to another.
var forgedEnds = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r.\n", "\n.\r",
	"\r\n\x00.\r\n", "\r\n.\x00\r\n", "\n\x00.\n", "\r\n\x00\x00.\x00\r\n",
}

// toData says all that comes before a message.
func toData(t *testing.T, p *testbed.Proxy, from string) *testbed.Conn {
	t.Helper()
	conn := mustOpen(t, p.Guess("smtp", from, "", ""))
	for _, line := range []string{"MAIL FROM:<a@example.org>", "RCPT TO:<b@example.test>", "DATA"} {
		if reply, err := conn.SMTP("%s", line); err != nil || reply[0] > '3' {
			t.Fatalf("%s: %q, %v", line, reply, err)
		}
	}
	return conn
}

// A second message hidden in the first behind a forged end reaches no server,
// wherever the bytes are cut on their way; the sender is scored.
func TestAttackSmuggledMessages(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, "smtp", nil)
	p := behindRecorder(t, r, "smtp", map[string]any{"abuse": "1000/1d"})
	const smuggled = "MAIL FROM:<smuggled@example.org>\r\nRCPT TO:<b@example.test>\r\nDATA\r\nhidden\r\n.\r\n"
	for i, end := range forgedEnds {
		for cut := range len(end) + 1 {
			from := fmt.Sprintf("127.70.%d.%d", i, cut+1)
			conn := toData(t, p, from)
			for _, part := range []string{"Subject: x\r\n\r\ntext" + end[:cut], end[cut:] + smuggled} {
				if _, err := conn.Write([]byte(part)); err != nil {
					break // refused already
				}
			}
			said, err := conn.Rest()
			if err != nil || !strings.HasPrefix(said, "550 5.5.2") && said != "" {
				t.Errorf("%q cut at %d: %q, %v", end, cut, said, err)
			}
			conn.Close()
			commands, messages := r.heard(from)
			if messages > 0 || strings.Contains(strings.Join(commands, "\n"), "smuggled") {
				t.Errorf("%q cut at %d: the server has %d messages and heard %q", end, cut, messages, commands)
			}
			if points := p.Metric(testbed.MetricEvents, testbed.Labels{"kind": "bare-newline"}); points == 0 {
				t.Errorf("%q: no event", end)
			}
		}
	}
}

// The octets of a chunk are data, whatever they look like, and what stands
// behind them is a command; a size that two could read differently ends the
// connection.
func TestAttackChunks(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, "smtp", nil)
	p := behindRecorder(t, r, "smtp", nil)
	const body = "RSET\r\n.\r\nMAIL FROM:<smuggled@example.org>\r\nQUIT\r\n"
	cases := []struct {
		bdat string
		ok   bool
	}{
		{fmt.Sprintf("BDAT %d LAST", len(body)), true},
		{fmt.Sprintf("BDAT %d", len(body)), true},
		{fmt.Sprintf("BDAT +%d LAST", len(body)), false},
		{fmt.Sprintf("BDAT %d LAST x", len(body)), false},
		{fmt.Sprintf("BDAT 0x%x LAST", len(body)), false},
		{"BDAT -1 LAST", false},
		{"BDAT 18446744073709551617 LAST", false},
		{"BDAT", false},
	}
	for i, c := range cases {
		from := fmt.Sprintf("127.71.0.%d", i+1)
		conn := mustOpen(t, p.Guess("smtp", from, "", ""))
		for _, line := range []string{"MAIL FROM:<a@example.org>", "RCPT TO:<b@example.test>"} {
			if reply, err := conn.SMTP("%s", line); err != nil {
				t.Fatalf("%s: %q, %v", line, reply, err)
			}
		}
		if _, err := conn.Write([]byte(c.bdat + "\r\n" + body + "QUIT\r\n")); err != nil {
			t.Fatal(err)
		}
		said, err := conn.Rest()
		if err != nil || strings.HasPrefix(said, "250") != c.ok {
			t.Errorf("%s: %q, %v", c.bdat, said, err)
		}
		commands, _ := r.heard(from)
		want := []string{"EHLO client.example.test", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.test>"}
		if c.ok {
			want = append(want, c.bdat, "QUIT")
		}
		if !slices.Equal(commands, want) {
			t.Errorf("%s: the server heard %q, want %q", c.bdat, commands, want)
		}
	}
}

// Two lines in one, where servers differ on whether a bare CR ends a line, are
// none.
func TestAttackTwoCommandsInALine(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, "smtp", nil)
	p := behindRecorder(t, r, "smtp", nil)
	conn := mustOpen(t, p.Guess("smtp", "127.72.0.1", "", ""))
	for _, line := range []string{"NOOP\rRCPT TO:<smuggled@example.test>", "MAIL FROM:<a@example.org>\r\r"} {
		reply, err := conn.SMTP("%s", line)
		if err != nil || !strings.HasPrefix(reply, "500") && !strings.HasPrefix(reply, "250") {
			t.Errorf("%q: %q, %v", line, reply, err)
		}
	}
	if heard := r.received("127.72.0.1"); strings.Contains(heard, "smuggled") || strings.Contains(heard, "\r\r") {
		t.Errorf("the server received %q", heard)
	}
}
