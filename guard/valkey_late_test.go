package guard

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"mailreeve/protocol"
)

// One call that gets lost is no outage, and what it was to say is said soon:
// it does not wait for the next outage to be over.
func TestAStepThatGotLostIsSentSoon(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	store := srv.shared()
	store.Timeout = Duration(300 * time.Millisecond)
	n := fleetOf(t, 1, store, nil)[0]
	a, v := n.ask(from("192.0.2.1"), plain("alice", "wrong"))
	if v != protocol.Pass {
		t.Fatal(v)
	}
	srv.signal(syscall.SIGSTOP)
	n.g.Settle(a, protocol.Failure, "535 5.7.8")
	if s := n.g.Status().Store.Shared; s.Timeouts != 1 || s.Buffered != 1 {
		t.Errorf("%d calls failed and %d steps wait, want one each", s.Timeouts, s.Buffered)
	}
	srv.signal(syscall.SIGCONT)
	eventually(t, 10*time.Second, "the step has been sent", func() bool { return n.g.Status().Store.Shared.Buffered == 0 })
	eventually(t, 10*time.Second, "one point", func() bool { return n.points("192.0.2.1") == 1 })
	if s := n.g.Status().Store.Shared; s.Outages != 0 {
		t.Errorf("an outage was declared: %s", n.said.text.String())
	}
}

// It is said at once, not when the next sign of life is due: until then the
// others do not count it.
func TestAStepThatGotLostWaitsForNoSignOfLife(t *testing.T) {
	n := fleetOf(t, 1, startServer(t).shared(), nil)[0]
	l := n.g.fleet.ledger
	n.back()
	const steps = 10
	start := time.Now()
	for i := range steps {
		c := realClaims(i)
		l.keep(&ledgerStep{id: newID(), at: l.link.now(), claims: c, charge: true})
		eventually(t, 10*time.Second, "the step has been sent", func() bool { return l.buffered() == 0 })
	}
	if took := time.Since(start); took > steps*beatEvery/2 {
		t.Errorf("%d steps, one after another, took %v, as if each waited for a sign of life", steps, took)
	}
}

// A call that takes too long is given up, and the connection is kept: its answer
// may come, and a new connection would take longer.
func TestALateAnswerCostsNoConnection(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	c := nodeClient(t, srv.shared())
	id := func(within time.Duration) (int64, error) {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		return c.Do(ctx, c.B().ClientId().Build()).AsInt64()
	}
	first, err := id(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	srv.signal(syscall.SIGSTOP)
	if _, err := id(100 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that is stopped answers: %v", err)
	}
	srv.signal(syscall.SIGCONT)
	if again, err := id(10 * time.Second); again != first || err != nil {
		t.Errorf("after a late answer it is connection %d, %v, want %d", again, err, first)
	}
}
