package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// hydra runs it against a port. It is meant to fail, so its exit code says
// nothing; it always comes from 127.0.0.1.
func hydra(t *testing.T, port int, login, passwords, module string, options ...string) {
	t.Helper()
	args := []string{"-I", "-l", login, "-P", passwords, "-t", "4", "-w", "5", "-s", fmt.Sprint(port), "-S", "127.0.0.1", module}
	cmd := exec.Command("timeout", append([]string{"90", "hydra"}, append(args, options...)...)...)
	cmd.Dir = t.TempDir() // it leaves a file to resume from
	out, err := cmd.CombinedOutput()
	if exit, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatalf("hydra: %v", err)
	} else if ok && exit.ExitCode() == 124 {
		t.Log("hydra did not give up in 90 s")
	}
	if strings.Contains(string(out), "login: "+login) {
		t.Errorf("hydra got in:\n%s", out)
	}
	t.Logf("hydra %s: %s", module, lastLine(string(out)))
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// hydra at imaps and smtps at once gets five answers from the servers in all,
// however many connections it opens; then it is refused at accept.
func TestHydraIsStoppedAtTheLimit(t *testing.T) {
	t.Parallel()
	const limit = 5
	p := bed.NewProxy(t, bed.Standard(map[string]any{"authentication": "5/1h"}))
	victim := bed.Users[16]
	var list strings.Builder
	for i := range 60 {
		fmt.Fprintln(&list, bed.Secrets.New(fmt.Sprintf("hydra%d", i)))
	}
	passwords := filepath.Join(t.TempDir(), "passwords")
	if err := os.WriteFile(passwords, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	together(2, func(i int) {
		if i == 0 {
			hydra(t, p.Port("imaps"), victim.Login, passwords, "imap", "PLAIN")
		} else {
			hydra(t, p.Port("submissions"), victim.Login, passwords, "smtp", "PLAIN")
		}
	})

	// Dovecot judges for Postfix too, so its log has the sum.
	pattern := `passwd-file\(` + victim.Login + `,127\.0\.0\.1[,)].*(Password mismatch|unknown user)`
	if n := bed.Dovecot.FlushedLog(t).Count(pattern); n == 0 || n > limit {
		t.Errorf("Dovecot's log shows %d refused passwords, want 1 to %d", n, limit)
	}
	pattern = `SASL .* authentication failed.*sasl_username=` + victim.Login
	if n := bed.Postfix.Log.Count(pattern); n > limit {
		t.Errorf("Postfix's log shows %d refused passwords, want at most %d", n, limit)
	}

	mustBan(t, p, "127.0.0.1")
	dials := p.Metric(testbed.MetricDials, nil)
	refused := turnedAway(p)
	for range 10 {
		if !dropped(t, "127.0.0.1", p.Port("imaps")) || !dropped(t, "127.0.0.1", p.Port("submission")) {
			t.Fatal("a connection of a banned address was not dropped at accept")
		}
	}
	if now := p.Metric(testbed.MetricDials, nil); now != dials {
		t.Errorf("%v dials for connections of a banned address", now-dials)
	}
	if now := turnedAway(p); now != refused+20 {
		t.Errorf("%v connections are counted as turned away, want 20", now-refused)
	}
	if !dropped(t, "127.0.0.1", p.Port("imap")) {
		t.Error("the ban does not hold at the other ports of its scope")
	}
	if dropped(t, "127.0.0.1", p.Port("mx")) {
		t.Error("a ban for guessing passwords closes port 25")
	}
}

// turnedAway is how many connections were refused for a ban, at accept or by
// the kernel.
func turnedAway(p *testbed.Proxy) float64 {
	return p.Metric(testbed.MetricRefused, testbed.Labels{"reason": "banned"}) + p.Metric(testbed.MetricFilterDropped, nil)
}
