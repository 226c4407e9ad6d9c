package guard

import (
	"strings"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"
)

// Whoever finds this node's other calls in the way waits no longer than the
// timeout, and is not counted alone: a burst is no way around the limit.
func TestABurstDoesNotMakeANodeCountAlone(t *testing.T) {
	l := newTestLedger(startServer(t).client(t), false)
	l.link.timeout = 50 * time.Millisecond
	for range maxCalls {
		l.gate <- struct{}{}
	}
	claims := realClaims(1)
	start := time.Now()
	if g, at := l.reserve(start, claims); g != full || at != 0 {
		t.Errorf("behind a crowd: grant %v at %d, want it to wait", g, at)
	}
	if took := time.Since(start); took < l.link.timeout || took > 20*l.link.timeout {
		t.Errorf("it took %v, want about %v", took, l.link.timeout)
	}
	if n := l.link.timeouts.Load(); n != 0 || l.buffered() != 0 {
		t.Errorf("%d calls count as failed and %d steps are buffered, want none", n, l.buffered())
	}
	// A store that is silent is another matter.
	l.link.mu.Lock()
	l.link.failures = 1
	l.link.mu.Unlock()
	if g, _ := l.reserve(time.Now(), claims); g != granted {
		t.Errorf("behind a silent store: grant %v, want this node to go on alone", g)
	}
	for range maxCalls {
		<-l.gate
	}
	l.link.timeout = 5 * time.Second // of a busy machine
	if g, _ := l.reserve(time.Now(), claims); g != granted || !l.link.answers() {
		t.Errorf("with nobody in the way: grant %v, want it granted by the store", g)
	}
}

// Whoever had to wait for a turn there does not ask for longer: what comes to the
// store after it has been given up changes nothing.
func TestATurnDoesNotProlongTheQuestion(t *testing.T) {
	srv := startServer(t)
	way := startWay(t, srv.addr)
	far := srv.client(t)
	shared := srv.shared()
	shared.Addresses = []string{way.addr}
	near := nodeClient(t, shared)
	l := newTestLedger(near, false)
	claims := realClaims(1)
	look := func(c valkey.Client) []storedView {
		t.Helper()
		views, err := l.store.read(t.Context(), c, claims[0].key, l.link.now())
		if err != nil {
			t.Fatal(err)
		}
		return views
	}
	look(near) // it is connected, and the server knows the script from now on
	// Half of a second is what this machine may be late by, in either wait.
	l.link.timeout = time.Second
	for range maxCalls {
		l.gate <- struct{}{}
	}
	time.AfterFunc(l.link.timeout/2, func() { <-l.gate })
	way.questions.Lock()
	if g, _ := l.reserve(time.Now(), claims); g != granted || l.buffered() != 1 {
		t.Errorf("without an answer in time: grant %v, %d steps wait, want it granted here and one step", g, l.buffered())
	}
	way.questions.Unlock()
	// What is asked next is answered next.
	look(near)
	if views := look(far); len(views) != 0 {
		t.Errorf("the store has %+v, want nothing reserved", views)
	}
}

// What a node sends goes over one connection, which keeps its order, on however
// many cores.
func TestOneConnectionKeepsTheOrder(t *testing.T) {
	c := nodeClient(t, startServer(t).shared())
	for range 100 {
		if err := c.Do(t.Context(), c.B().Set().Key("key").Value("value").Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	list, err := redisCLI(t, c, "CLIENT", "LIST").ToString()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(list, "name=mailreeve "); n != 1 {
		t.Errorf("%d connections:\n%s", n, list)
	}
}

// Several calls that fail at one moment are one silence, and a silence shorter
// than twice the timeout is no outage.
func TestAShortSilenceIsNoOutage(t *testing.T) {
	l := newTestLedger(startServer(t).client(t), false)
	l.link.timeout = time.Minute
	for range 3 * failuresToAway {
		l.link.heard(errLate)
	}
	if l.link.client() == nil {
		t.Fatal("the store is taken to be away after a moment")
	}
	l.link.mu.Lock()
	l.link.silent = l.link.silent.Add(-2 * time.Minute)
	l.link.mu.Unlock()
	l.link.heard(errLate)
	if l.link.client() != nil {
		t.Error("the store is taken to be there after two minutes of silence")
	}
}
