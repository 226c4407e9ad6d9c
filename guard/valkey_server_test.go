package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"
)

// A server is a redis-server (or valkey-server) that the test has started.
type server struct {
	t     testing.TB
	addr  string
	dir   string
	args  []string
	conf  string // of a Sentinel
	netns string // the network namespace that it runs in, "" for ours
	cmd   *exec.Cmd
}

// startServer starts a server on a free port. args are its configuration.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	s := &server{t: t, addr: freeAddr(t), dir: t.TempDir(), args: args}
	s.start()
	t.Cleanup(s.kill)
	return s
}

// serverBinary finds the server's program, or skips the test.
func serverBinary(t testing.TB) string {
	t.Helper()
	path, err := storeBinary()
	if err != nil {
		t.Skip(err)
	}
	return path
}

func storeBinary() (string, error) {
	for _, name := range []string{"valkey-server", "redis-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("neither valkey-server nor redis-server is installed; \"make test\" installs redis-server")
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *server) port() string {
	_, port, _ := net.SplitHostPort(s.addr)
	return port
}

// start starts the program and waits until it answers.
func (s *server) start() {
	s.t.Helper()
	binary := serverBinary(s.t)
	out, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	args := append([]string{"--port", s.port(), "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no"}, s.args...)
	if s.conf != "" {
		args = []string{s.conf, "--sentinel", "--port", s.port(), "--bind", "127.0.0.1", "--dir", s.dir}
	}
	if s.netns != "" {
		binary, args = "ip", append([]string{"netns", "exec", s.netns, binary}, args...)
	}
	s.cmd = exec.Command(binary, args...)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, 10*time.Second, "redis-server answers", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

// kill ends the program as a power cut does.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGCONT)
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s.cmd = nil
}

func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// client gives a client of the test's own.
func (s *server) client(t testing.TB) valkey.Client {
	t.Helper()
	c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{s.addr}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// tell sends a command as an operator would.
func redisCLI(t testing.TB, c valkey.Client, words ...string) valkey.ValkeyResult {
	t.Helper()
	r := c.Do(context.Background(), c.B().Arbitrary(words...).Build())
	if err := r.Error(); err != nil && !valkey.IsValkeyNil(err) {
		t.Fatalf("%s: %v", strings.Join(words, " "), err)
	}
	return r
}

// eventually waits for a condition.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %v: %s", within, what)
		case <-tick.C:
		}
	}
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// newTestLedger makes a ledger on a server, under a prefix of its own.
func newTestLedger(c valkey.Client, split bool) *fleetLedger {
	k := &link{log: quiet, clock: time.Now, timeout: 5 * time.Second}
	k.up.Store(&c)
	local := newMemoryLedger(tableBounds{1000, 1000, 1000}, func(string) bool { return false })
	rules := func() []string {
		var out []string
		for _, r := range testRules {
			out = append(out, r.rule)
		}
		return out
	}
	return newFleetLedger(local, k, names{fmt.Sprintf("test-%s:", newID())}, split, rules, nil)
}
