package integration

import (
	"fmt"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// A mailbox server that has been taken over, or is broken, says what nobody
// asked for, or says it without end. Nobody is scored for it but for a guess
// that was really refused, what we keep of it stays small, and others are
// served.
func TestAttackHostileMailboxServer(t *testing.T) {
	t.Parallel()
	endless := strings.Repeat("x", 1<<20)
	list := strings.Repeat("KEYWORD "+strings.Repeat("y", 400)+"\r\n", 20000)
	quoted := strings.Repeat("\"KEYWORD\" \""+strings.Repeat("y", 400)+"\"\r\n", 20000)
	for _, c := range []struct {
		protocol, login string
		answers         []struct{ line, says string }
	}{
		{"pop3", "CAPA\r\nUSER alice\r\nPASS %s\r\nQUIT\r\n", []struct{ line, says string }{
			{"CAPA", "+OK\r\n" + list + ".\r\n"},
			{"CAPA", "+OK\r\n" + endless},
			{"CAPA", "+OK\r\n.\r\n+OK\r\n+OK in\r\n"},
			{"USER", "+OK\r\n-ERR [AUTH] no\r\n"},
			{"PASS", "+ " + endless},
			{"PASS", strings.Repeat("* nonsense\r\n", 10000)},
			{"PASS", strings.Repeat("\x00", 1<<16)},
			{"", "+OK " + endless},
			{"", "HTTP/1.1 200 OK\r\n\r\n"},
		}},
		{"managesieve", "CAPABILITY\r\nAUTHENTICATE \"PLAIN\" \"%s\"\r\nLOGOUT\r\n", []struct{ line, says string }{
			{"CAPABILITY", quoted + "OK\r\n"},
			{"CAPABILITY", "\"X\" \"" + endless},
			{"CAPABILITY", "\"X\" {1152921504606846976}\r\n" + endless},
			{"CAPABILITY", "OK\r\nNO \"no\"\r\nOK \"in\"\r\n"},
			{"AUTHENTICATE", "{1152921504606846976}\r\n" + endless},
			{"AUTHENTICATE", "NO {1152921504606846976}\r\n" + endless},
			{"AUTHENTICATE", strings.Repeat("\"VXNlcm5hbWU6\"\r\n", 10000) + "BYE\r\n"},
			{"AUTHENTICATE", strings.Repeat("\x00", 1<<16)},
			{"", quoted + endless},
			{"", "HTTP/1.1 200 OK\r\n\r\n"},
		}},
		{"imap", "a CAPABILITY\r\nb AUTHENTICATE PLAIN %s\r\nc LOGOUT\r\n", []struct{ line, says string }{
			{"a CAPABILITY", strings.Repeat("* CAPABILITY "+strings.Repeat("Y", 4000)+"\r\n", 2000) + "a OK\r\n"},
			{"a CAPABILITY", "* CAPABILITY " + endless},
			{"a CAPABILITY", "* X {1152921504606846976}\r\n" + endless},
			{"a CAPABILITY", "b OK in\r\na OK\r\n"},
			{"b AUTHENTICATE", strings.Repeat("+ VXNlcm5hbWU6\r\n", 10000) + "* BYE\r\n"},
			{"b AUTHENTICATE", "+ " + endless},
			{"b AUTHENTICATE", strings.Repeat("a OK in\r\n", 10000) + "* BYE\r\n"},
			{"", "* PREAUTH come in\r\n"},
			{"", "* OK " + endless},
		}},
	} {
		t.Run(c.protocol, func(t *testing.T) {
			r := newRecorder(t, c.protocol, func(conn *recorded, line string) string {
				var n int
				if _, err := fmt.Sscanf(conn.from, "127.86.0.%d", &n); err != nil || n < 1 || n > len(c.answers) {
					return "usual"
				}
				if a := c.answers[n-1]; a.line == line || a.line != "" && strings.HasPrefix(line, a.line) {
					return a.says
				}
				return "usual"
			})
			p := behindRecorder(t, r, c.protocol, map[string]any{"authentication": "2/1h", "abuse": "1/1d", "loitering": "1/1d"})
			before := p.RSS()
			together(len(c.answers), func(i int) {
				from := fmt.Sprintf("127.86.0.%d", i+1)
				conn, err := testbed.Dial(from, p.Port(c.protocol))
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				_ = conn.Send(c.login, testbed.Plain("alice", bed.Secrets.New(fmt.Sprintf("hostile-%s-%d", c.protocol, i))))
				if _, err := conn.Rest(); err != nil {
					t.Errorf("%s, %.60q: %v", c.answers[i].line, c.answers[i].says, err)
				}
			})
			if grown := p.RSS() - before; grown > 64<<20 {
				t.Errorf("%d MiB more than before", grown>>20)
			}
			if n := p.Metric("mailreeve_attempts_total", testbed.Labels{"outcome": "success"}); n > 0 {
				t.Errorf("%v forged logins", n)
			}
			if bans := p.Bans(); len(bans) > 0 {
				t.Errorf("bans: %v", bans)
			}
			mustOpen(t, p.Guess(c.protocol, "127.86.1.1", "", ""))
		})
	}
}
