package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"mailreeve/guard"
)

// skipIfTaken skips where something else has the demo's ports.
func skipIfTaken(t *testing.T) {
	t.Helper()
	addresses := []string{defaultMetrics}
	for _, l := range demoListeners() {
		addresses = append(addresses, l.Address)
	}
	for _, a := range addresses {
		l, err := net.Listen("tcp", a)
		if err != nil {
			t.Skipf("the demo's ports are taken: %v", err)
		}
		l.Close()
	}
}

// TestDemo plays the demo's show as a newcomer does: mail goes through, the
// attack ends in a ban after exactly the limit, and nothing is left behind.
func TestDemo(t *testing.T) {
	skipIfTaken(t)
	ignore := goleak.IgnoreCurrent()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"demo", "--once"}, &stdout, &stderr); code != exitDone {
		t.Fatalf("exit code %d\n%s\n%s", code, &stdout, &stderr)
	}
	for _, want := range []string{
		`127\.0\.0\.1:10025 +smtp`,
		`alice@example\.test +alice-pw`,
		`the server behind saw 5 guesses; the limit is 5`,
		`127\.0\.0\.66 +auth +authentication`,
		`connects again: `,
		`Subject: Hello from Bob`,
	} {
		if !regexp.MustCompile(want).Match(stdout.Bytes()) {
			t.Errorf("the output has no %s:\n%s", want, &stdout)
		}
	}
	dir := regexp.MustCompile(`store: (\S+)`).FindSubmatch(stdout.Bytes())
	if dir == nil {
		t.Fatal("the demo does not say where its directory is")
	}
	if _, err := os.Stat(string(dir[1])); err == nil {
		t.Errorf("the demo leaves %s behind", dir[1])
	}
	goleak.VerifyNone(t, ignore)
}

// TestDemoKeepsPasswords searches what the demo leaves on disk, and every
// answer of the admin API and of /metrics, for passwords: right ones and
// guesses, plain and as SASL PLAIN sends them. What the demo prints about its
// two users is the one exception, and not looked at here.
func TestDemoKeepsPasswords(t *testing.T) {
	skipIfTaken(t)
	var out bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d, err := startDemo(ctx, &invocation{stdout: &out, stderr: &out})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := d.show(ctx); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	var secrets []string
	for _, u := range demoUsers() {
		secrets = append(secrets, u.password, plainResponse(u.login, u.password))
	}
	for i := range attackers {
		secrets = append(secrets, fmt.Sprintf("guess-%d", i))
	}
	secrets = append(secrets, base64.StdEncoding.EncodeToString([]byte(demoUsers()[0].password)))
	search := func(where string, text []byte) {
		t.Helper()
		for _, s := range secrets {
			if bytes.Contains(text, []byte(s)) {
				t.Errorf("%s has the password %q", where, s)
			}
		}
	}
	search("the show's output", out.Bytes())
	for _, verb := range []string{"status", "bans --evidence", "why " + attackerAddress, "why alice@example.test", "logins", "top"} {
		var answer bytes.Buffer
		args := append(strings.Fields(verb), "--json", "--config", d.config())
		if code := run(ctx, args, &answer, &answer); code != exitDone {
			t.Errorf("%s: exit code %d: %s", verb, code, &answer)
		}
		search(verb, answer.Bytes())
	}
	files := 0
	err = filepath.WalkDir(d.dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		files++
		search(path, text)
		return err
	})
	if err != nil || files < 5 {
		t.Errorf("searched %d files, %v", files, err)
	}
	// The evidence adds up: the ban's events are as many points as its score.
	if got := len(d.daemon.guard.Bans(guard.BanFilter{Evidence: true})[0].Events); got != demoGuesses {
		t.Errorf("the ban's evidence has %d events, want %d", got, demoGuesses)
	}
}

// TestDemoServerWantsItsProxy connects to the mail server behind directly, as
// somebody who would bypass the proxy does.
func TestDemoServerWantsItsProxy(t *testing.T) {
	s, err := newDemoServer(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, l := range []net.Listener{s.mx, s.submission, s.imap} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("a LOGIN alice@example.test alice-pw\r\n")); err != nil {
			t.Fatal(err)
		}
		reply := make([]byte, 64)
		if n, err := c.Read(reply); err == nil {
			t.Errorf("%v answers %q to a client without a PROXY header", l.Addr(), reply[:n])
		}
		c.Close()
	}
}
