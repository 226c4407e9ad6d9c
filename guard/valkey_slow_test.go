package guard

import (
	"strings"
	"testing"
	"time"
)

// A store that lives but takes longer than a credential waits is away, which is
// said once and not each time that it is looked at.
func TestASlowStoreIsAwayAndThatIsSaidOnce(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	way := startWay(t, srv.addr)
	store := srv.shared()
	store.Addresses = []string{way.addr}
	store.Timeout = Duration(200 * time.Millisecond)
	n := fleetOf(t, 1, store, nil)[0]
	n.guesses("192.0.2.1", "alice", 3)
	way.late.Store(int64(300 * time.Millisecond))
	n.guesses("192.0.2.1", "bob", 3)
	n.away()
	c := srv.client(t)
	beats := func() int64 {
		b, _ := redisCLI(t, c, "GET", n.g.fleet.beats[0]).AsInt64()
		return b
	}
	first := beats()
	eventually(t, 20*time.Second, "the store has been looked at five times", func() bool { return beats() >= first+5 })
	if n.said.times("the store is away") != 1 || n.said.times("the store is back") != 0 {
		t.Errorf("said: %s", n.said.text.String())
	}
	if s := n.g.Status().Store.Shared; !strings.Contains(s.Error, "longer than store.timeout") {
		t.Errorf("the status says %q", s.Error)
	}
	if got := n.guesses("192.0.2.1", "carol", 10); got != 4 {
		t.Errorf("%d more guesses while alone, want 4", got)
	}
	way.late.Store(0)
	n.back()
	if n.said.times("the store is away") != 1 || n.said.times("the store is back") != 1 {
		t.Errorf("said: %s", n.said.text.String())
	}
}
