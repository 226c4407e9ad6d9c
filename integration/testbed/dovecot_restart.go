package testbed

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// Restart stops Dovecot and starts it again; meanwhile nobody answers at its
// ports, and whoever was logged in is not any more.
func (d *Dovecot) Restart(t testing.TB) {
	t.Helper()
	if err := ignoreExit(d.stop()); err != nil {
		t.Errorf("stop dovecot: %v", err)
	}
	dir := filepath.Dir(string(d.Log))
	proc, err := startProcess(filepath.Join(dir, "dovecot.out"),
		exec.Command("/usr/sbin/dovecot", "-F", "-c", filepath.Join(dir, "dovecot.conf")))
	if err != nil {
		t.Errorf("start dovecot: %v", err)
		return
	}
	d.proc = proc
	if err := awaitPorts(d.proc, d.ports()); err != nil {
		t.Errorf("dovecot: %v", err)
	}
}
