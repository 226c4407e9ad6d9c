package integration

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// Every test with a proxy searches its log, its metrics and its store for the
// passwords of the whole run. This one sends them where they do not belong,
// which is how they get into logs.
func TestMisplacedPasswordsStaySecret(t *testing.T) {
	t.Parallel()
	cfg := bed.Standard(map[string]any{"authentication": "50/1h", "login": "50/1h", "abuse": "500/1h"})
	p := bed.NewProxy(t, cfg)
	secret := bed.Secrets.New("misplaced")
	smtp := []string{
		"AUTH PLAIN " + testbed.Plain("alice@example.test", secret),
		"AUTH " + secret,
		secret,
		base64.StdEncoding.EncodeToString([]byte(secret)),
		"MAIL FROM:<a@example.org> AUTH=" + secret,
	}
	imap := []string{
		"a LOGIN alice@example.test " + secret,
		`a LOGIN "alice@example.test" "` + secret,
		"a LOGIN " + secret,
		secret + " LOGIN a b",
		"a AUTHENTICATE PLAIN " + testbed.Plain("alice@example.test", secret),
		"a AUTHENTICATE " + secret,
		"LOGIN alice@example.test " + secret,
		secret,
	}
	for i, c := range []struct {
		listeners []string
		lines     []string
	}{{[]string{"mx", "submission", "submissions"}, smtp}, {[]string{"imap", "imaps"}, imap}} {
		for j, listener := range c.listeners {
			for k, line := range c.lines {
				guess := p.Guess(listener, fmt.Sprintf("127.45.%d.%d", i*10+j, k+1), "", "")
				conn := mustOpen(t, guess)
				if err := conn.Send("%s", line); err != nil {
					t.Fatal(err)
				}
				conn.Line() // whatever the answer is
				conn.Close()
			}
		}
	}
	// What the operator is shown must not hold them either.
	for _, args := range [][]string{{"status", "--json"}, {"bans", "--json"}, {"why", "alice@example.test", "--json"}, {"why", "127.45.0.1"}} {
		out := p.Admin(args...)
		for _, f := range bed.Secrets.Find("mailreeve "+strings.Join(args, " "), []byte(out)) {
			t.Error(f)
		}
	}
}

// The search itself finds what it should.
func TestTheSearchForSecretsFinds(t *testing.T) {
	t.Parallel()
	var secrets testbed.Secrets
	secret := secrets.New("found")
	for name, text := range map[string]string{
		"raw":       "password=" + secret + " rest",
		"base64":    testbed.Plain("alice", secret),
		"shifted 1": testbed.Plain("alice@", secret),
		"shifted 2": testbed.Plain("alice@e", secret),
		"hex":       fmt.Sprintf("%x", "pass "+secret),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "log"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := secrets.FindInFiles(dir)
		if err != nil || len(found) == 0 {
			t.Errorf("%s: %q is not found in %q, %v", name, secret, text, err)
		}
	}
	if found := secrets.Find("text", []byte("nothing of note")); len(found) > 0 {
		t.Errorf("found %v in nothing", found)
	}
}
