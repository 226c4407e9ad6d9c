package proxy

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"mailreeve/protocol"
)

// A faulty conversation panics at the client's first line, with the
// connection's lock held.
type faulty struct{ protocol.Conversation }

func (faulty) Client(data []byte) protocol.Step {
	if len(data) == 0 {
		return protocol.Step{Do: protocol.More}
	}
	panic("a fault for the test")
}

// A panic ends the program at once, and the log names the connection before
// the trace. The program is this test, run once more.
func TestPanicEndsTheProgram(t *testing.T) {
	const child = "MAILREEVE_TEST_PANICS"
	if os.Getenv(child) != "" {
		b := newBed(t, smtpPlain, mx, nil)
		svc := b.server.current.services[0]
		proto := *svc.proto
		of := proto.New
		proto.New = func(s protocol.Setup) protocol.Conversation { return faulty{of(s)} }
		svc.proto = &proto
		b.server.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
		c := b.dial("127.0.42.1")
		c.expect("220 ")
		c.send("EHLO x")
		c.rest()
		t.Fatal("it lives on")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout="+patience.String())
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Fatalf("it ends with %v, want exit status 2\n%s", err, out)
	}
	said := strings.Index(string(out), "a fault in mailreeve itself")
	line, trace, _ := strings.Cut(string(out)[max(said, 0):], "\n")
	if said < 0 || !strings.Contains(line, "listener=test client=127.0.42.1:") {
		t.Errorf("the log does not name the connection: %s", line)
	}
	if !strings.Contains(trace, "panic: a fault for the test") || !strings.Contains(trace, "faulty.Client") {
		t.Errorf("no trace of the fault:\n%s", trace)
	}
}
