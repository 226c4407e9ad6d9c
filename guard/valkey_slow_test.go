package guard

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A slowWay is a way to a server on which answers take their time.
type slowWay struct {
	addr  string
	delay atomic.Int64 // in nanoseconds
}

func startSlowWay(t *testing.T, to string) *slowWay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w := &slowWay{addr: l.Addr().String()}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			go w.answers(client, server)
			go func() {
				_, _ = io.Copy(server, client) // either end may leave
				server.Close()
			}()
		}
	}()
	return w
}

// answers carries a server's answers, each a while later.
func (w *slowWay) answers(client, server net.Conn) {
	defer client.Close()
	b := make([]byte, 1<<16)
	for {
		n, err := server.Read(b)
		if err != nil {
			return
		}
		<-time.After(time.Duration(w.delay.Load()))
		if _, err := client.Write(b[:n]); err != nil {
			return
		}
	}
}

// A store that lives but takes longer than a credential waits is away, which is
// said once and not each time that it is looked at.
func TestASlowStoreIsAwayAndThatIsSaidOnce(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	way := startSlowWay(t, srv.addr)
	store := srv.shared()
	store.Addresses = []string{way.addr}
	store.Timeout = Duration(200 * time.Millisecond)
	n := fleetOf(t, 1, store, nil)[0]
	n.guesses("192.0.2.1", "alice", 3)
	way.delay.Store(int64(300 * time.Millisecond))
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
	way.delay.Store(0)
	n.back()
	if n.said.times("the store is away") != 1 || n.said.times("the store is back") != 1 {
		t.Errorf("said: %s", n.said.text.String())
	}
}
