package integration

import (
	"fmt"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// A bad file is refused with its line, and everything keeps running as it was.
func TestReloadWithABadFile(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		spoil func(text string) string
		line  string // the text of the line that the error must name
		want  string // and what it must say
	}{
		{"unknown key", func(s string) string { return strings.Replace(s, "[guard]", "[guard]\nauthentification = \"5/1h\"", 1) },
			"authentification", "authentification"},
		{"bad limit", func(s string) string {
			return strings.Replace(s, `authentication = "5/1h"`, `authentication = "five"`, 1)
		},
			`authentication = "five"`, "authentication"},
		{"unknown upstream", func(s string) string {
			return s + "\n[[listener]]\nname = \"x\"\naddress = \"127.0.0.1:0\"\nprotocol = \"imap\"\ntls = \"none\"\nupstream = \"nobody\"\n"
		},
			`upstream = "nobody"`, "nobody"},
		{"not TOML", func(s string) string { return s + "\ncolour = blue\n" }, "colour = blue", ""},
		{"no certificate there", func(s string) string { return strings.Replace(s, "mx.pem", "nothing.pem", 1) },
			"", "nothing.pem"},
	}
	p := bed.NewProxy(t, bed.Standard(map[string]any{"authentication": "5/1h"}))
	good := p.ConfigText()
	user := bed.Users[32]
	open := mustLogin(t, p.Guess("imaps", "127.38.0.1", user.Login, user.Password))
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bad := c.spoil(good)
			if bad == good {
				t.Fatal("the case spoils nothing")
			}
			p.WriteConfigText(bad)
			out, errs, err := p.Run("reload")
			if err == nil {
				t.Fatalf("reload succeeded: %s", out)
			}
			said := out + errs
			if n := lineOf(bad, c.line); n > 0 && !strings.Contains(said, fmt.Sprintf(":%d:", n)) {
				t.Errorf("line %d is not named: %s", n, said)
			}
			if !strings.Contains(said, c.want) {
				t.Errorf("%q is not named: %s", c.want, said)
			}
			if _, errs, err := p.Run("check"); err == nil {
				t.Errorf("check finds nothing wrong: %s", errs)
			}
		})
	}
	if line, err := open.IMAP("n", "NOOP"); err != nil || !strings.HasPrefix(line, "n OK") {
		t.Errorf("the open connection: %q, %v", line, err)
	}
	mustLogin(t, p.Guess("imaps", "127.38.0.2", user.Login, user.Password))
	// SIGHUP with a bad file must not end the program either.
	p.HUP()
	p.Log.Await(t, `(?i)level=ERROR.*`)
	mustLogin(t, p.Guess("imaps", "127.38.0.3", user.Login, user.Password))
}

// lineOf is the number of the last line that contains what, 0 for none.
func lineOf(text, what string) int {
	if what == "" {
		return 0
	}
	found := 0
	n := 0
	for line := range strings.Lines(text) {
		n++
		if strings.Contains(line, what) {
			found = n
		}
	}
	return found
}

// A good file takes over: new limits and listeners hold, listeners that are
// gone are closed, connections that are open live on, and bans stay.
func TestReloadWithAGoodFile(t *testing.T) {
	t.Parallel()
	const attacker = "127.38.1.1"
	p := bed.NewProxy(t, bed.Standard(map[string]any{"authentication": "5/1h"}))
	user := bed.Users[33]
	idle := mustLogin(t, p.Guess("imaps", "127.38.1.2", user.Login, user.Password))
	if err := idle.Send("i IDLE"); err != nil {
		t.Fatal(err)
	}
	if line, err := idle.Line(); err != nil || !strings.HasPrefix(line, "+") {
		t.Fatalf("IDLE: %q, %v", line, err)
	}
	sending := mustOpen(t, p.Guess("mx", "127.38.1.3", "", ""))
	for _, command := range []string{"MAIL FROM:<" + envelopeFrom + ">", "RCPT TO:<" + user.Login + ">", "DATA"} {
		if reply, err := sending.SMTP("%s", command); err != nil || reply[0] > '3' {
			t.Fatalf("%s: %q, %v", command, reply, err)
		}
	}
	p.Admin("ban", attacker)

	cfg := p.Config
	gone := p.Port("submissions")
	cfg = cfg.Without("submissions")
	cfg.Guard = testbed.Rules(map[string]any{"authentication": "2/1h"})
	p.WriteConfig(cfg)
	p.Admin("reload")

	if conn, err := testbed.Dial("127.38.1.4", gone); err == nil {
		conn.Close()
		t.Error("a listener that is gone from the file still listens")
	}
	if _, ok := p.Banned(attacker); !ok {
		t.Error("the ban is gone")
	}
	for i := range 2 {
		p.Guess("imaps", "127.38.1.5", user.Login, bed.Secrets.New(fmt.Sprintf("reload%d", i))).Answer()
	}
	mustBan(t, p, "127.38.1.5")

	if err := idle.Send("DONE"); err != nil {
		t.Fatal(err)
	}
	if line, err := idle.Tagged("i"); err != nil || !strings.HasPrefix(line, "i OK") {
		t.Errorf("IDLE over a reload: %q, %v", line, err)
	}
	subject := token(t)
	if reply, err := sending.SMTP("Subject: %s\r\n\r\nover a reload\r\n.", subject); err != nil || reply[0] != '2' {
		t.Errorf("DATA over a reload: %q, %v", reply, err)
	}
	bed.AwaitMail(t, user.Login, subject)
}
