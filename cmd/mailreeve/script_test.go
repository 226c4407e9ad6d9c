package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mailreeve": main})
}

// TestScripts plays testdata/script: what an operator types, against the real
// program. Beside testscript's own commands there are
//
//	expand FILE...      replace $NAME in files by the environment's values
//	await ARG...        run mailreeve with these arguments until it succeeds
//	code N ARG...       run mailreeve, which must exit with code N
//
// and a mail server behind, at $MX, $SUBMISSION and $IMAP.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			server, err := newDemoServer(slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			env.Defer(func() {
				if err := server.Close(); err != nil {
					t.Error(err)
				}
			})
			env.Setenv("MX", server.mx.Addr().String())
			env.Setenv("SUBMISSION", server.submission.Addr().String())
			env.Setenv("IMAP", server.imap.Addr().String())
			// A socket's path is short, $WORK may not be.
			dir, err := os.MkdirTemp("", "reeve")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			env.Setenv("RUN", dir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"expand": expandFiles,
			"await":  awaitSuccess,
			"code":   expectCode,
		},
	})
}

func expandFiles(ts *testscript.TestScript, _ bool, files []string) {
	for _, file := range files {
		file = ts.MkAbs(file)
		text, err := os.ReadFile(file)
		ts.Check(err)
		ts.Check(os.WriteFile(file, []byte(os.Expand(string(text), ts.Getenv)), 0o600))
	}
}

// awaitSuccess bounds its wait; the ticker is only how often it looks.
func awaitSuccess(ts *testscript.TestScript, _ bool, args []string) {
	end := time.After(20 * time.Second)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := ts.Exec("mailreeve", args...)
		if err == nil {
			return
		}
		select {
		case <-end:
			ts.Fatalf("mailreeve %v does not succeed: %v", args, err)
		case <-again.C:
		}
	}
}

func expectCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("mailreeve", args[1:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("mailreeve %v exits with %d, want %d", args[1:], got, want)
	}
}

// TestCompletionScriptsParse has each shell that is here read its script.
func TestCompletionScriptsParse(t *testing.T) {
	for shell, check := range map[string][]string{"bash": {"-n"}, "zsh": {"-n"}, "fish": {"--no-execute"}} {
		t.Run(shell, func(t *testing.T) {
			var script, stderr bytes.Buffer
			if code := run(t.Context(), []string{"completion", shell}, &script, &stderr); code != exitDone {
				t.Fatalf("exit code %d: %s", code, &stderr)
			}
			for _, v := range verbs() {
				if !bytes.Contains(script.Bytes(), []byte(v.name)) {
					t.Errorf("%s is not in the script", v.name)
				}
			}
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("%s is not installed", shell)
			}
			file := filepath.Join(t.TempDir(), "completion")
			if err := os.WriteFile(file, script.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(path, append(check, file)...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", shell, err, out)
			}
		})
	}
}
