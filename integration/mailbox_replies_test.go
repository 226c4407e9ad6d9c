package integration

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// Every reply of the real Dovecot is one that was asked for: behind whatever a
// client may do before its login, the next password still goes there. The
// capabilities that come unasked behind STARTTLS are the handshake's.
func TestDovecotRepliesToWhatWasAsked(t *testing.T) {
	t.Parallel()
	secured := func(port int) []testbed.Upstream {
		return []testbed.Upstream{{
			Name: "server", Addresses: []string{fmt.Sprintf("127.0.0.1:%d", port)}, ProxyProtocol: "none",
			TLS: "starttls", CA: bed.CA.File, ServerName: "imap.example.test",
		}}
	}
	clear := func(port int) []testbed.Upstream {
		return []testbed.Upstream{{Name: "server", Addresses: []string{fmt.Sprintf("127.0.0.1:%d", port)}}}
	}
	for i, c := range []struct {
		protocol string
		name     string
		servers  []testbed.Upstream
	}{
		{"pop3", "header", clear(bed.Dovecot.POP3Proxy)},
		{"pop3", "STARTTLS", secured(bed.Dovecot.POP3)},
		{"managesieve", "header", clear(bed.Dovecot.SieveProxy)},
		{"managesieve", "STARTTLS", secured(bed.Dovecot.Sieve)},
	} {
		t.Run(c.protocol+" "+c.name, func(t *testing.T) {
			t.Parallel()
			cfg := testbed.InFront(c.protocol, "implicit", 1, map[string]any{"authentication": "100/1h"})
			cfg.Upstreams = c.servers
			p := bed.NewProxy(t, cfg)
			user := bed.Users[38]
			conn := mustOpen(t, p.Guess(c.protocol, fmt.Sprintf("127.70.6.%d", i+1), "", ""))
			plain := func(password string) string {
				return base64.StdEncoding.EncodeToString([]byte("\x00" + user.Login + "\x00" + password))
			}
			wrong := plain(bed.Secrets.New(fmt.Sprintf("asked-%d", i)))
			// What is sent, and how the last line of its answer begins.
			type step struct{ send, want string }
			var steps []step
			ask := conn.Sieve
			if c.protocol == "pop3" {
				ask = conn.POP3
				steps = []step{
					{"NOOP", "+OK"}, {"NOOP", "+OK"}, {"NOOP", "+OK"}, // three are ours
					{"UTF8", "-ERR"}, {"AUTH NTLM", "-ERR"}, // of three unknown ones Dovecot closes
					{"AUTH PLAIN", "+ "}, {"*", "-ERR"},
					{"AUTH PLAIN", "+ "}, {"!", "-ERR"},
					{"AUTH PLAIN " + wrong, "-ERR [AUTH]"},
					{"AUTH PLAIN", "+ "}, {wrong[:len(wrong)-4] + plain("other"), "-ERR"},
					{"USER " + user.Login, "+OK"}, {"PASS other", "-ERR [AUTH]"},
					{"USER " + user.Login, "+OK"}, {"PASS " + user.Password, "+OK"},
				}
			} else {
				steps = []step{
					{"CAPABILITY", "OK"}, {"NOOP", "OK"}, {"NOOP", "OK"}, {"NOOP", "OK"}, {"NOOP", "OK"}, {`NOOP "tag"`, "OK (TAG"},
					{`AUTHENTICATE "NTLM"`, "NO"},
					{`AUTHENTICATE "PLAIN" "` + wrong + `"`, "NO"},
					{`AUTHENTICATE "PLAIN" "!"`, "NO"},
					{"CAPABILITY", "OK"},
					{`AUTHENTICATE "PLAIN" "` + plain(user.Password) + `"`, "OK"},
				}
			}
			for _, s := range steps {
				line, err := ask("%s", s.send)
				if err != nil || !strings.HasPrefix(line, s.want) {
					t.Fatalf("%.20s is answered %q, %v; want %s", s.send, line, err, s.want)
				}
			}
		})
	}
}
