package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"mailreeve/proxy"
)

// journalStream names a file as systemd does in JOURNAL_STREAM.
func journalStream(t *testing.T, f *os.File) string {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// logged gives the lines that a logger writes to a pipe, one of each level,
// with the lines of connections among them.
func logged(t *testing.T, r, w *os.File, format string) []string {
	t.Helper()
	log, flush := newLogger(w, LogConfig{Level: "debug", Format: format}, new(slog.LevelVar))
	log.Debug("looked")
	log.Info(proxy.ConnectionEnded, "conn", "a")
	log.With("upstream", "mx").Warn("is away")
	log.WithGroup("store").Error("cannot be written", "error", "disk full")
	log.Log(t.Context(), slog.LevelError+4, "worse")
	log.Info(proxy.ConnectionEnded, "conn", "b")
	flush()
	w.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// In the journal each line has its priority and, as text, no time of its own.
func TestJournalLines(t *testing.T) {
	for format, want := range map[string][]string{
		"text": {
			`^<7>level=DEBUG msg=looked$`,
			`^<6>level=INFO msg=connection conn=a$`,
			`^<4>level=WARN msg="is away" upstream=mx$`,
			`^<3>level=ERROR msg="cannot be written" store.error="disk full"$`,
			`^<3>level=ERROR\+4 msg=worse$`,
			`^<6>level=INFO msg=connection conn=b$`,
		},
		"json": {
			`^<7>\{"time":"[^"]+","level":"DEBUG","msg":"looked"\}$`,
			`^<6>\{"time":.*"conn":"a"\}$`,
			`^<4>\{"time":.*"upstream":"mx"\}$`,
			`^<3>\{"time":.*"store":\{"error":"disk full"\}\}$`,
			`^<3>\{"time":.*"msg":"worse"\}$`,
			`^<6>\{"time":.*"conn":"b"\}$`,
		},
	} {
		t.Run(format, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			t.Setenv("JOURNAL_STREAM", journalStream(t, w))
			lines := logged(t, r, w, format)
			if len(lines) != len(want) {
				t.Fatalf("got %d lines, want %d: %q", len(lines), len(want), lines)
			}
			for i, re := range want {
				if !regexp.MustCompile(re).MatchString(lines[i]) {
					t.Errorf("got %q, want %s", lines[i], re)
				}
			}
		})
	}
}

// A standard error that was redirected since systemd opened it is not the
// journal, whatever the environment says.
func TestJournalElsewhere(t *testing.T) {
	other, err := os.Create(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for name, stream := range map[string]string{"redirected": journalStream(t, other), "no systemd": ""} {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			t.Setenv("JOURNAL_STREAM", stream)
			for _, line := range logged(t, r, w, "text") {
				if !strings.HasPrefix(line, "time=") {
					t.Errorf("got %q, want it to begin with the time", line)
				}
			}
		})
	}
}

// What the program dies of is an error in the journal, each line of it.
func TestJournalOfFatalErrors(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, []byte("[guard]\nfoo = 1\nbar = 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stderr, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	t.Setenv("JOURNAL_STREAM", journalStream(t, stderr))
	if code := run(t.Context(), []string{"serve", "--config", config}, io.Discard, stderr); code != exitConfig {
		t.Errorf("exit code %d, want %d", code, exitConfig)
	}
	text, err := os.ReadFile(stderr.Name())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) < 2 {
		t.Errorf("got %q, want a line for each fault", text)
	}
	for _, line := range lines {
		if !strings.HasPrefix(line, "<3>mailreeve: ") {
			t.Errorf("got %q, want it to begin with its priority", line)
		}
	}
}
