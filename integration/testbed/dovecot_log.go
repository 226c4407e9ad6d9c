package testbed

import (
	"fmt"
	"testing"
)

// FlushedLog is the log with everything in it that the server has judged so
// far. Its lines come later than its answers, so it is asked about a login of
// nobody's, and that line is waited for: one process judges all passwords, and
// its lines are in order.
func (d *Dovecot) FlushedLog(t testing.TB) LogFile {
	t.Helper()
	nobody := fmt.Sprintf("flush-%d", d.flushes.Add(1))
	asked := Guess{From: "127.0.0.1", Port: d.IMAPS, Protocol: "imap", TLS: "implicit", Login: nobody, Password: "x"}
	if answer, text, _ := asked.Try(); answer != Wrong {
		t.Fatalf("Dovecot answers a login of nobody's: %s, %q", answer, text)
	}
	d.Log.Await(t, `passwd-file\(`+nobody+`,`)
	return d.Log
}
