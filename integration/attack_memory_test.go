package integration

import (
	"fmt"
	"strings"
	"testing"
)

// Whatever a client sends before its login, without end and on many connections,
// is not kept: the memory in use stays within a bound that the bytes alone would
// break. The program under test has the race detector, which
// costs several times what the product does.
func TestAttackMemory(t *testing.T) {
	t.Parallel()
	const (
		connections = 25
		megabytes   = 4 // of each
		bound       = 80 << 20
	)
	big := strings.Repeat("x", 1<<20)
	for i, c := range []struct{ name, protocol, begin, more string }{
		{"a line without end", "smtp", "EHLO ", big},
		{"an AUTH response without end", "submission", "AUTH PLAIN\r\n", big},
		{"recipients without end", "smtp", "MAIL FROM:<a@example.org>\r\n", strings.Repeat("RCPT TO:<"+strings.Repeat("r", 200)+"@example.test>\r\n", 5000)},
		{"errors without end", "smtp", "", strings.Repeat("NONSENSE\r\n", 1<<17)},
		{"parentheses without end", "imap", "a ID ", strings.Repeat("(", 1<<20)},
		{"a literal of 2 GB", "imap", "a LOGIN {2147483647+}\r\n", big},
		{"small literals without end", "imap", "a ID (", strings.Repeat("{1+}\r\nx ", 1<<17)},
		{"a line without end", "pop3", "USER ", big},
		{"commands without end", "pop3", "", strings.Repeat("CAPA\r\n", 1<<17)},
		{"a literal of 2 GB", "managesieve", "NOOP {2147483647+}\r\n", big},
		{"literals without end", "managesieve", "", strings.Repeat("NOOP {4+}\r\nxxxx\r\n", 1<<16)},
		{"tags without end", "imap", "", strings.Repeat(strings.Repeat("t", 120)+" NOOP\r\n", 8000)},
	} {
		t.Run(c.protocol+": "+c.name, func(t *testing.T) {
			r := newRecorder(t, c.protocol, nil)
			p := behindRecorder(t, r, c.protocol, map[string]any{"abuse": "4000/1d"})
			before := p.RSS()
			from := fmt.Sprintf("127.76.0.%d", i+1)
			most := 0
			together(connections, func(n int) {
				conn, err := p.Guess(c.protocol, from, "", "").Open()
				if err != nil {
					t.Errorf("open: %v", err)
					return
				}
				defer conn.Close()
				conn.Patience = longer
				_, _ = conn.Write([]byte(c.begin))
				for range megabytes {
					// A server that takes its time is no fault; who stops reading is.
					if conn.Send("%s", c.more) != nil {
						return
					}
					if n == 0 {
						most = max(most, p.RSS())
					}
				}
			})
			most = max(most, p.RSS())
			if most-before > bound {
				t.Errorf("%d MiB more than before", (most-before)>>20)
			}
			mustOpen(t, p.Guess(c.protocol, "127.76.1.1", "", ""))
		})
	}
}
