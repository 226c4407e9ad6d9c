package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailreeve/guard"
)

// TestImportFormats reads what other programs write, telling the format by
// itself.
func TestImportFormats(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	local := time.Date(2030, 1, 2, 3, 4, 5, 0, time.Local)
	for _, c := range []struct {
		name, format, text string
		want               []importEntry
	}{
		{"a list with comments", "plain", "# my list\n192.0.2.1\n\n2001:db8::/48 # a scanner\n198.51.100.0/24 ; SBL1\n",
			[]importEntry{{target: "192.0.2.1"}, {target: "2001:db8::/48", reason: "a scanner"}, {target: "198.51.100.0/24", reason: "SBL1"}}},
		{"several on a line, as fail2ban-client get JAIL banip", "plain", "192.0.2.1 192.0.2.2\r\n",
			[]importEntry{{target: "192.0.2.1"}, {target: "192.0.2.2"}}},
		{"our own table", "csv", "target,scope,rule,since,until,reason\n192.0.2.1,auth,authentication,2029-01-01T00:00:00Z,2030-01-02T03:04:05Z,\n192.0.2.2,all,manual,2029-01-01T00:00:00Z,forever,\"a, b\"\n",
			[]importEntry{{target: "192.0.2.1", scope: "auth", until: at, reason: "authentication"}, {target: "192.0.2.2", scope: "all", forever: true, reason: "a, b"}}},
		{"a table without names", "csv", "192.0.2.1,x\n192.0.2.2,y\n", []importEntry{{target: "192.0.2.1"}, {target: "192.0.2.2"}}},
		{"our own JSON", "json", `[{"target":"192.0.2.1","scope":"mx","rule":"abuse","since":"2029-01-01T00:00:00Z"}]`,
			[]importEntry{{target: "192.0.2.1", scope: "mx", forever: true, reason: "abuse"}}},
		{"a list in JSON", "json", `["192.0.2.1", "192.0.2.0/24"]`, []importEntry{{target: "192.0.2.1"}, {target: "192.0.2.0/24"}}},
		{"CrowdSec's decisions", "json", `[{"id":1,"decisions":[{"value":"192.0.2.1","scope":"Ip","scenario":"crowdsecurity/dovecot-spam","until":"2030-01-02T03:04:05Z"}]}]`,
			[]importEntry{{target: "192.0.2.1", until: at, reason: "crowdsecurity/dovecot-spam"}}},
		{"fail2ban-client banned", "fail2ban", "[{'sshd': ['192.0.2.1', '2001:db8::1']}, {'postfix-sasl': []}, {'dovecot': ['192.0.2.2']}]\n",
			[]importEntry{{target: "192.0.2.1", reason: "fail2ban sshd"}, {target: "2001:db8::1", reason: "fail2ban sshd"}, {target: "192.0.2.2", reason: "fail2ban dovecot"}}},
		{"fail2ban-client get JAIL banip --with-time", "fail2ban", "192.0.2.1 \t2030-01-02 03:04:00 + 5 = 2030-01-02 03:04:05\n192.0.2.2 \t2030-01-02 03:04:00 + -1 = 9999-12-31 23:59:59\n",
			[]importEntry{{target: "192.0.2.1", until: local, reason: "fail2ban"}, {target: "192.0.2.2", forever: true, reason: "fail2ban"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := detectFormat([]byte(c.text)); got != c.format {
				t.Errorf("taken for %s, want %s", got, c.format)
			}
			got, err := readEntries(c.format, []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(importEntry{})); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		})
	}
	for format, text := range map[string]string{
		"plain": "192.0.2.1\n192.0.2.300\n", "csv": "name,age\njohn,3\n", "json": `[{"target":"192.0.2.1","until":"tomorrow"}]`, "fail2ban": "Status for the jail",
	} {
		if got, err := readEntries(format, []byte(text)); err == nil {
			t.Errorf("%s %q is read as %v", format, text, got)
		}
	}
}

// makeDatabase makes an SQLite database by a script.
func makeDatabase(t *testing.T, script string) (path string) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 to make the database with")
	}
	path = filepath.Join(t.TempDir(), "fail2ban.sqlite3")
	const make = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])"
	if out, err := exec.Command(python, "-c", make, path, script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// A database that answers without an end is not read to its end.
func TestImportOfAnEndlessDatabase(t *testing.T) {
	db := makeDatabase(t, `CREATE VIEW bips(ip, jail, timeofban, bantime) AS
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT '192.0.2.1', hex(zeroblob(5000000)), 1, 1 FROM n;`)
	if _, err := readImport(t.Context(), db, ""); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
}

// fail2ban's own database, made as fail2ban 1.0 makes it.
func TestImportReadsFail2bansDatabase(t *testing.T) {
	for _, reader := range []string{"sqlite3", "python3"} {
		t.Run(reader, func(t *testing.T) {
			tool, err := exec.LookPath(reader)
			if err != nil {
				t.Skipf("there is no %s", reader)
			}
			db := makeDatabase(t, `CREATE TABLE bips(ip TEXT NOT NULL, jail TEXT NOT NULL, timeofban INTEGER NOT NULL,
				bantime INTEGER NOT NULL, bancount INTEGER NOT NULL default 1, data JSON, PRIMARY KEY(ip, jail));
				INSERT INTO bips VALUES('192.0.2.1','dovecot',1893553440,5,1,'{}'),('2001:db8::1','postfix',1893553440,-1,3,'{}'),('a-user','x',1,1,1,'{}'),
				('192.0.2.2','dovecot',1,9223372036854775807,1,'{}');`)
			if out, err := exec.Command(tool, "-c", "import sys; print(sys.executable)").Output(); reader == "python3" && err == nil {
				tool = strings.TrimSpace(string(out)) // not a script that chooses one
			}
			bin := t.TempDir()
			if err := os.Symlink(tool, filepath.Join(bin, reader)); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", bin+":/usr/bin/none")
			got, err := readImport(t.Context(), db, "")
			if err != nil {
				t.Fatal(err)
			}
			want := []importEntry{
				{target: "192.0.2.1", until: time.Unix(1893553445, 0), reason: "fail2ban dovecot"},
				{target: "2001:db8::1", forever: true, reason: "fail2ban postfix"},
				{target: "192.0.2.2", forever: true, reason: "fail2ban dovecot"},
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(importEntry{})); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		})
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := readFail2banDatabase(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "sqlite3 command or python3") {
		t.Errorf("without either: %v", err)
	}
}

// What has ended is left out; of what is there twice the longer ban stays.
func TestImportRequests(t *testing.T) {
	now := time.Now()
	entries := []importEntry{
		{target: "192.0.2.1", until: now.Add(time.Hour)},
		{target: "192.0.2.1/32", until: now.Add(2 * time.Hour), reason: strings.Repeat("r", 2*maxReason)},
		{target: "192.0.2.2", until: now.Add(-time.Hour)},
		{target: "192.0.2.3"},
		{target: "nonsense"},
	}
	got, answer := importRequests(entries, guard.BanRequest{Reason: "a list"})
	want := []guard.BanRequest{
		{Target: "192.0.2.1/32", For: guard.Duration(2 * time.Hour), Reason: strings.Repeat("r", maxReason)},
		{Target: "192.0.2.3", Reason: "a list"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if answer.Expired != 1 || answer.Repeated != 1 || len(answer.Refused) != 1 {
		t.Errorf("counts: %+v", answer)
	}
}

// What is allowed, banned as long already, or half of the Internet is left out.
func TestImportLeavesOut(t *testing.T) {
	d := startDaemon(t)
	call[guard.Ban](t, d, "POST", "/v1/bans", `{"target":"192.0.2.1","for":"forever"}`)
	call[guard.Ban](t, d, "POST", "/v1/bans", `{"target":"192.0.2.2","scope":"mx","for":"2h"}`)
	call[guard.Allowed](t, d, "POST", "/v1/allow", `{"target":"192.0.2.3"}`)
	body := `{"bans":[{"target":"192.0.2.1","for":"1h"},{"target":"192.0.2.2","scope":"mx","for":"1h"},
		{"target":"192.0.2.2","scope":"mx","for":"3h"},{"target":"192.0.2.2","for":"1h"},{"target":"192.0.2.3"},
		{"target":"10.0.0.0/8"},{"target":"128.0.0.0/7"},{"target":"::/1"},{"target":"nonsense"},{"target":"192.0.2.4","scope":"nowhere"}]}`
	got, status := call[imported](t, d, "POST", "/v1/import", body)
	if status != http.StatusOK || got.Already != 2 || got.Allowed != 1 || got.Banned != 3 || len(got.Refused) != 4 {
		t.Errorf("status %d, %+v", status, got)
	}
	if n := len(d.guard.Bans(guard.BanFilter{})); n != 4 {
		t.Errorf("%d bans are in force, want 4", n)
	}
}
