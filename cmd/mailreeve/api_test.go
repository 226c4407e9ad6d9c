package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"mailreeve/guard"
	"mailreeve/protocol"
	"mailreeve/proxy"
)

// startDaemon runs the whole program in this process, on ports the system
// chooses, with no server behind. Its configuration ends within [guard].
func startDaemon(t *testing.T) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "reeve") // A socket's path is short.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "config.toml")
	text := "[admin]\nsocket = \"" + filepath.Join(dir, "admin.sock") + "\"\nmetrics = \"\"\n[store]\nkind = \"memory\"\n" +
		strings.ReplaceAll(strings.ReplaceAll(goodConfig, ":11143", ":1"), `":143"`, `"127.0.0.1:0"`) +
		"[timeouts]\ndrain = \"1s\"\n[guard]\nexempt-local = false\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := loadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	d, err := start(t.Context(), file, c, proxy.SocketStore{}, slog.New(slog.DiscardHandler), new(slog.LevelVar))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return d
}

// call asks the API and decodes its answer, whatever its status.
func call[T any](t *testing.T, d *daemon, method, path, body string) (answer T, status int) {
	t.Helper()
	c := newClient(d.current().Admin.Socket)
	req, err := http.NewRequestWithContext(t.Context(), method, "http://mailreeve"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatalf("%s %s: status %d: %v", method, path, resp.StatusCode, err)
	}
	return answer, resp.StatusCode
}

func TestAPIBansAndUnbans(t *testing.T) {
	d := startDaemon(t)
	ban, status := call[guard.Ban](t, d, "POST", "/v1/bans", `{"target":"192.0.2.7","scope":"auth","for":"2h","reason":"x"}`)
	if status != 200 || ban.Target != "192.0.2.7" || ban.Scope != "auth" {
		t.Fatalf("status %d, ban %+v", status, ban)
	}
	bans, _ := call[[]guard.Ban](t, d, "GET", "/v1/bans?scope=auth&within=192.0.2.0/24", "")
	if len(bans) != 1 || bans[0].Target != "192.0.2.7" {
		t.Errorf("bans in the network: %+v", bans)
	}
	if bans, _ := call[[]guard.Ban](t, d, "GET", "/v1/bans?within=198.51.100.0/24", ""); bans == nil || len(bans) != 0 {
		t.Errorf("bans elsewhere: %+v, want an empty list that is not null", bans)
	}
	why, _ := call[guard.Why](t, d, "GET", "/v1/why?target=192.0.2.7", "")
	if len(why.Bans) != 1 || why.Bans[0].Reason != "x" {
		t.Errorf("why: %+v", why)
	}
	removed, _ := call[guard.Removed](t, d, "POST", "/v1/unban", `{"target":"192.0.2.7"}`)
	if len(removed.Bans) != 1 {
		t.Errorf("removed %+v, want one ban", removed)
	}
	if bans, _ := call[[]guard.Ban](t, d, "GET", "/v1/bans", ""); len(bans) != 0 {
		t.Errorf("still banned: %+v", bans)
	}
}

func TestAPIRefusesWhatItDoesNotUnderstand(t *testing.T) {
	d := startDaemon(t)
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"POST", "/v1/bans", `{"target":"192.0.2.300"}`, 400, "192.0.2.300"},
		{"POST", "/v1/bans", `{"target":"192.0.2.0/23","colour":"red"}`, 400, "colour"},
		{"POST", "/v1/bans", `{"target":"192.0.2.1","for":"a while"}`, 400, "a while"},
		{"POST", "/v1/bans", `{"target":"192.0.2.1"} {}`, 400, "more than one"},
		{"POST", "/v1/bans", `{"target":"` + strings.Repeat("1", maxRequest) + `"}`, 400, "too large"},
		{"POST", "/v1/allow", `{"target":"mail.example.test"}`, 400, "allowed-ip"},
		{"GET", "/v1/bans?within=here", "", 400, "here"},
		{"GET", "/v1/top?n=-1", "", 400, "n = \"-1\""},
		{"GET", "/v1/why", "", 400, "name a target"},
		{"GET", "/v1/nothing", "", 404, "GET /v1/nothing"},
		{"DELETE", "/v1/bans", "", 404, "DELETE /v1/bans"},
	} {
		answer, status := call[apiError](t, d, c.method, c.path, c.body)
		if status != c.status || !strings.Contains(answer.Error, c.says) {
			t.Errorf("%s %s: status %d, %q; want %d, naming %q", c.method, c.path, status, answer.Error, c.status, c.says)
		}
	}
}

func TestReloadIsAllOrNothing(t *testing.T) {
	d := startDaemon(t)
	text, err := os.ReadFile(d.file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(d.file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(text) + "login = \"9/1h\"\nban-tme = \"1h\"\n")
	answer, status := call[apiError](t, d, "POST", "/v1/reload", "")
	line := strings.Count(string(text), "\n") + 2
	if want := d.file + ":" + strconv.Itoa(line) + ": guard.ban-tme"; status != 409 || !answer.Config || !strings.HasPrefix(answer.Error, want) {
		t.Errorf("status %d, %+v; want an error that begins with %q", status, answer, want)
	}
	if got := d.current().Guard.Login.String(); got != "20/1h" {
		t.Errorf("after a bad reload guard.login is %s, want the old 20/1h", got)
	}
	if v := gauge(t, d, "mailreeve_config_last_reload_successful"); v != "0" {
		t.Errorf("mailreeve_config_last_reload_successful = %s, want 0", v)
	}
	write(string(text) + "login = \"9/1h\"\n[log]\nlevel = \"debug\"\n")
	if answer, status := call[reloaded](t, d, "POST", "/v1/reload", ""); status != 200 {
		t.Fatalf("status %d, %+v", status, answer)
	}
	if got := d.current().Guard.Login.String(); got != "9/1h" {
		t.Errorf("after a reload guard.login is %s, want 9/1h", got)
	}
	if d.level.Level() != slog.LevelDebug {
		t.Errorf("after a reload the log's level is %v, want debug", d.level.Level())
	}
	if v := gauge(t, d, "mailreeve_config_last_reload_successful"); v != "1" {
		t.Errorf("mailreeve_config_last_reload_successful = %s, want 1", v)
	}
}

// TestSIGHUPReloads follows what serve does with its signals.
func TestSIGHUPReloads(t *testing.T) {
	d := startDaemon(t)
	text, err := os.ReadFile(d.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.file, append(text, "login = \"9/1h\"\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	hup, done := make(chan os.Signal), make(chan struct{})
	go func() {
		defer close(done)
		d.obey(ctx, hup)
	}()
	hup <- syscall.SIGHUP
	hup <- syscall.SIGHUP // Taken once the first is done with.
	cancel()
	<-done
	if got := d.current().Guard.Login.String(); got != "9/1h" {
		t.Errorf("after SIGHUP guard.login is %s, want 9/1h", got)
	}
}

// gauge reads one metric without labels from /metrics.
func gauge(t *testing.T, d *daemon, name string) string {
	t.Helper()
	w := httptest.NewRecorder()
	d.metrics.handler(d).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(w.Body.String())
	if m == nil {
		t.Fatalf("/metrics has no %s; status %d", name, w.Code)
	}
	return m[1]
}

func TestMetricsAndHealth(t *testing.T) {
	d := startDaemon(t)
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		d.metrics.handler(d).ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w
	}
	metrics := get("/metrics").Body.String()
	for _, name := range []string{"mailreeve_build_info{", "go_goroutines ", "process_open_fds ",
		"mailreeve_config_last_reload_success_timestamp_seconds "} {
		if !strings.Contains(metrics, "\n"+name) {
			t.Errorf("/metrics has no %s", name)
		}
	}
	if w := get("/healthz"); w.Code != 200 {
		t.Errorf("/healthz: %d", w.Code)
	}
	// The server behind is down, so this must not be ready, and say why.
	if w := get("/readyz"); w.Code != 503 || !strings.Contains(w.Body.String(), "imap") {
		t.Errorf("/readyz: %d %q", w.Code, w.Body)
	}
}

func TestEventsAreStreamed(t *testing.T) {
	d := startDaemon(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	resp, err := newClient(d.current().Admin.Socket).request(ctx, "GET", "/v1/events", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	// The answer's header has come, so the stream follows from here on.
	loitering := protocol.Event{Kind: protocol.Loitering}
	origin := &guard.Origin{Addr: netip.MustParseAddr("192.0.2.9"), Listener: "imap", Scope: "auth", Protocol: "imap"}
	d.guard.Report(origin, "", loitering)
	var e guard.Event
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
		t.Fatal(err)
	}
	if e.Kind != loitering.Kind || e.Addr != origin.Addr || e.Listener != "imap" {
		t.Errorf("event %+v", e)
	}
}

func TestAdminSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.sock")
	l, err := listenAdmin(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("mode %v, %v; want %o", info.Mode(), err, socketMode)
	}
	if _, err := listenAdmin(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another mailreeve") {
		t.Errorf("a socket in use: error %v", err)
	}
	// A crash leaves the socket behind without anyone listening.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	l, err = listenAdmin(t.Context(), path)
	if err != nil {
		t.Fatalf("a socket left behind is not replaced: %v", err)
	}
	l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenAdmin(t.Context(), file); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file in the way: error %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file in the way is now %q, %v", text, err)
	}
}

// TestNothingIsLeftRunning starts and stops the program, and a start that
// fails half way.
func TestNothingIsLeftRunning(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	t.Run("start and stop", func(t *testing.T) { startDaemon(t) })
	t.Run("start fails", func(t *testing.T) {
		d := startDaemon(t)
		c := *d.current()
		c.Admin.Socket += ".2"
		c.Admin.Metrics = "256.0.0.1:1"
		if _, err := start(t.Context(), d.file, &c, proxy.SocketStore{}, slog.New(slog.DiscardHandler), new(slog.LevelVar)); err == nil {
			t.Error("started with a metrics address that does not exist")
		}
		if _, err := os.Stat(c.Admin.Socket); err == nil {
			t.Error("the admin socket is left behind")
		}
	})
	goleak.VerifyNone(t, ignore)
}

// TestAPIDocumented keeps docs/api.md and the code's calls equal.
func TestAPIDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^### `((?:GET|POST) /v1/[a-z]+)").FindAllSubmatch(text, -1) {
		documented = append(documented, string(m[1]))
	}
	served := []string{"GET /v1/events"}
	for _, r := range new(daemon).routes() {
		served = append(served, r.pattern)
	}
	slices.Sort(documented)
	slices.Sort(served)
	if !slices.Equal(documented, served) {
		t.Errorf("docs/api.md has %v\nthe program %v", documented, served)
	}
}

// TestTextIsQuoted prints what an attacker chose as a login.
func TestTextIsQuoted(t *testing.T) {
	var out bytes.Buffer
	in := &invocation{stdout: &out, stderr: io.Discard}
	in.showBans([]guard.Ban{{Target: "\x1b[2Jalice\u202e", Kind: "guard", Reason: "a\nb"}})
	evil := "\x1b[2Jalice\u202e" // as another node of a fleet may say
	ban := guard.Ban{Target: evil, Scope: evil, Rule: evil, Limit: evil, Reason: evil, Score: 1}
	ban.Events = []guard.Scored{{Event: guard.Event{Login: evil, Listener: evil, Kind: protocol.Kind(evil), Code: evil,
		Addr: netip.MustParseAddr("fe80::1").WithZone(evil)}}}
	in.showBans([]guard.Ban{ban})
	in.showNewBan(guard.Ordered{Ban: guard.Ban{Reason: evil}, Before: &ban})
	in.showRemoved(evil, guard.Removed{Bans: []guard.Ban{ban}, Remaining: []guard.Ban{ban}})
	in.showWhy(guard.Why{Target: evil, Bans: []guard.Ban{ban}, Past: []guard.Ban{ban},
		Scores: []guard.Score{{Key: evil, Rule: evil, Limit: evil, Events: ban.Events}}})
	in.showTop(guard.Top{Logins: []guard.Score{{Key: evil, Rule: evil, Limit: evil}}})
	news, err := json.Marshal(guard.News{Event: ban.Events[0].Event, Ban: &ban})
	if err != nil {
		t.Fatal(err)
	}
	if err := in.copyEvents(bytes.NewReader(news)); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); strings.ContainsAny(s, "\x1b\u202e") || !strings.Contains(s, `"a\nb"`) {
		t.Errorf("an attacker's text reaches the terminal: %q", s)
	}
}
