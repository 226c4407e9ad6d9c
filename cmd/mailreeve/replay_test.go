package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// A recording is a guard whose events are written down.
type recording struct {
	*testing.T
	guard *guard.Guard
	text  bytes.Buffer
}

// record plays a story against a guard and gives what the event log would have.
func record(t *testing.T, edit func(*guard.Config), story func(r *recording)) []byte {
	t.Helper()
	var text []byte
	synctest.Test(t, func(t *testing.T) {
		cfg := guard.DefaultConfig()
		cfg.ExemptLocal = false
		edit(&cfg)
		g, err := guard.Open(cfg, guard.Options{
			Store: guard.StoreConfig{Kind: "memory"}, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		r := &recording{T: t, guard: g}
		out := json.NewEncoder(&r.text)
		g.Follow(func(n *guard.News) {
			if err := out.Encode(n); err != nil {
				t.Error(err)
			}
		})
		story(r)
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		text = r.text.Bytes()
	})
	return text
}

// try sends a password, which the server takes if it is "right".
func (r *recording) try(addr, login, password string) {
	r.Helper()
	o := &guard.Origin{Addr: netip.MustParseAddr(addr), Listener: "imaps", Scope: "auth", Protocol: "imap", Upstream: "imap"}
	if r.guard.Admit(o) == protocol.Banned {
		return
	}
	a, _ := r.guard.Attempt(r.Context(), o, &protocol.Credential{Mechanism: "LOGIN", Identities: []string{login}, Secret: []byte(password)})
	if a == nil {
		return
	}
	out := protocol.Failure
	if password == "right" {
		out = protocol.Success
	}
	r.guard.Settle(a, out, "NO")
}

func replayed(t *testing.T, rules string, files map[string][]byte) *replayAnswer {
	t.Helper()
	dir := t.TempDir()
	config := `[admin]
socket = "/unused"
[[upstream]]
name = "imap"
addresses = ["127.0.0.1:1"]
[[listener]]
name = "imap"
address = "127.0.0.1:0"
protocol = "imap"
tls = "none"
upstream = "imap"
[guard]
exempt-local = false
` + rules
	c, err := parseConfig("config.toml", config)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	answer, err := replay(t.Context(), names, "config.toml", c)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// office is a day: an attacker guesses, a phone repeats an old password, one
// person mistypes five times and then gets in.
func office(r *recording) {
	r.try("198.51.100.1", "alice", "right")
	for i := range 12 {
		r.try("192.0.2.66", "alice", fmt.Sprint("guess", i))
		r.try("198.51.100.1", "bob", "the old password")
		time.Sleep(2 * time.Minute)
	}
	for i := range 5 {
		r.try("203.0.113.7", "carol", fmt.Sprint("typo", i))
	}
	time.Sleep(10 * time.Minute)
	r.try("203.0.113.7", "carol", "right")
}

// Played against the settings that it was recorded under, a log gives what was.
func TestReplayUnderTheSameSettingsGivesWhatWas(t *testing.T) {
	log := record(t, func(*guard.Config) {}, office)
	a := replayed(t, "", map[string][]byte{"events.jsonl": log})
	if a.Was.Bans != 1 || a.Would.Bans != 1 || len(a.Bans) != 1 || a.Bans[0].Change != "same" {
		t.Errorf("was %+v, would %+v, %+v", a.Was, a.Would, a.Bans)
	}
	if a.Was.Reached != a.Would.Reached || a.Was.FalseBans+a.Would.FalseBans != 0 {
		t.Errorf("was %+v, would %+v", a.Was, a.Would)
	}
	ban := a.Bans[0].Ban
	if ban.Target != "192.0.2.66" || ban.Rule != "authentication" || ban.Score != 10 {
		t.Errorf("the ban: %+v", ban)
	}
}

// Stricter settings ban earlier, and also one who then logged in: probably a
// mistake, which is told.
func TestReplayTellsWhomStricterSettingsWouldHit(t *testing.T) {
	log := record(t, func(*guard.Config) {}, office)
	a := replayed(t, `authentication = "4/1h"`, map[string][]byte{"events.jsonl": log})
	if a.Would.Bans != 2 || a.Would.FalseBans != 1 || a.Would.FalseBanRate != 0.5 || a.Was.FalseBans != 0 {
		t.Fatalf("was %+v, would %+v", a.Was, a.Would)
	}
	byTarget := map[string]replayBan{}
	for _, b := range a.Bans {
		byTarget[b.Ban.Target] = b
	}
	if b := byTarget["192.0.2.66"]; b.Change != "same" || !b.LoggedIn.IsZero() {
		t.Errorf("the attacker: %+v", b)
	}
	if b := byTarget["203.0.113.7"]; b.Change != "new" || b.LoggedIn.Sub(b.Ban.Since) != 10*time.Minute {
		t.Errorf("who mistyped: %+v", b)
	}
	// The phone's old password counts once there too.
	if b, hit := byTarget["198.51.100.1"]; hit {
		t.Errorf("the office is banned: %+v", b)
	}
	if a.Would.Reached >= a.Was.Reached {
		t.Errorf("%d credentials would reach the server, %d did", a.Would.Reached, a.Was.Reached)
	}
}

// Looser settings lift bans; a log of a dry run has all of what came.
func TestReplayTellsWhichBansWouldBeGone(t *testing.T) {
	log := record(t, func(c *guard.Config) { c.DryRun = true }, office)
	a := replayed(t, "authentication = \"30/1h\"\ndry-run = true\n[[guard.rule]]\nname = \"two\"\nkey = \"login-at-address\"\n"+
		"points = { auth-failure = 1 }\nlimit = \"2/1h\"\nconsequence = \"refuse\"\ndry-run = true", map[string][]byte{"events.jsonl": log})
	if a.Was.Bans != 1 || a.Would.Bans != 0 || a.Would.Guarded != 2 {
		t.Errorf("was %+v, would %+v", a.Was, a.Would)
	}
	var gone int
	for _, b := range a.Bans {
		if b.Change == "gone" && b.Ban.Target == "192.0.2.66" && b.Ban.Simulated {
			gone++
		}
	}
	if gone != 1 {
		t.Errorf("bans %+v", a.Bans)
	}
}

// Places that were familiar before the log begins are so in the replay.
func TestReplayKnowsPlacesFromBeforeTheLog(t *testing.T) {
	log := record(t, func(*guard.Config) {}, func(r *recording) {
		r.try("198.51.100.1", "alice", "right")
		r.text.Reset()
		for i := range 25 { // a botnet closes the login to strangers
			r.try(fmt.Sprintf("192.0.%d.1", i), "alice", fmt.Sprint("guess", i))
		}
		r.try("198.51.100.1", "alice", "typo")
		r.try("198.51.100.1", "alice", "right")
	})
	a := replayed(t, "", map[string][]byte{"events.jsonl": log})
	if a.Would.Guarded != 1 || a.Would.Reached != a.Was.Reached || a.Would.Refused != a.Was.Refused {
		t.Errorf("was %+v, would %+v", a.Was, a.Would)
	}
}

// Files in any order, one of them compressed, one torn: the same as one file.
func TestReplayMergesFiles(t *testing.T) {
	log := record(t, func(*guard.Config) {}, office)
	lines := strings.SplitAfter(string(log), "\n")
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	for i, line := range lines {
		if i < len(lines)/3 {
			z.Write([]byte(line))
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	var even, odd strings.Builder // as the nodes of a fleet write them
	for i, line := range lines[len(lines)/3:] {
		if i%2 == 0 {
			even.WriteString(line)
		} else {
			odd.WriteString(line)
		}
	}
	odd.WriteString(`{"time":"20`)
	whole := replayed(t, "", map[string][]byte{"events.jsonl": log})
	parts := replayed(t, "", map[string][]byte{
		"a.jsonl": []byte(odd.String()), "b.jsonl.2.gz": zipped.Bytes(), "c.jsonl": []byte(even.String()), "d.jsonl": nil,
	})
	if parts.Unreadable != 1 || parts.Events != whole.Events || fmt.Sprint(parts.Would) != fmt.Sprint(whole.Would) {
		t.Errorf("in parts %+v\nwhole %+v", parts, whole)
	}
}

// What is no event log is said to be none.
func TestReplayRefusesOtherFiles(t *testing.T) {
	name := filepath.Join(t.TempDir(), "mail.log")
	text := "Nov 22 10:00:00 mx postfix/smtpd[1]: connect from unknown\n" + strings.Repeat("x", 3*maxEventLine) + "\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := eachEvent([]string{name}, func(*guard.News) error { return nil }); err == nil || !strings.Contains(err.Error(), "is it an event log") {
		t.Errorf("error %v", err)
	}
}

// In a fleet a ban is in the logs of all nodes; it is counted at the one that
// decided it.
func TestReplayOfAFleetsLogsCountsABanOnce(t *testing.T) {
	log := record(t, func(*guard.Config) {}, office)
	var elsewhere []byte
	for line := range bytes.Lines(log) {
		var n guard.News
		if err := json.Unmarshal(line, &n); err != nil {
			t.Fatal(err)
		}
		if n.Ban == nil {
			continue
		}
		n.Elsewhere = true
		b, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		elsewhere = append(append(elsewhere, b...), '\n')
	}
	if len(elsewhere) == 0 {
		t.Fatal("the recording has no ban")
	}
	a := replayed(t, "", map[string][]byte{"one.jsonl": log, "two.jsonl": elsewhere})
	if a.Was.Bans != 1 || a.Would.Bans != 1 || len(a.Bans) != 1 || a.Bans[0].Change != "same" {
		t.Errorf("was %+v, would %+v, %+v", a.Was, a.Would, a.Bans)
	}
}
