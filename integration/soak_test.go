package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// A soak is what goes on at once, and what came of it.
type soak struct {
	p       *testbed.Proxy
	dovecot *testbed.Dovecot

	logins, later, guesses, strangers, restarts atomic.Int64
}

// soakListeners are the ports that all of it goes on at.
var soakListeners = [...]string{"submission", "submissions", "imap", "imaps", "pop3", "pop3s", "sieve"}

// TestSoak is `make soak`: people, guessers, those who say nothing or nonsense,
// and a server that is restarted, all at once for the time that MAILREEVE_SOAK
// gives. Once they are gone, what mailreeve holds must be what it held after
// the first fifth: no goroutine, no descriptor, no memory more.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("MAILREEVE_SOAK"))
	if err != nil {
		t.Skip("run by make soak only, for MAILREEVE_SOAK, such as 1h")
	}
	s := &soak{dovecot: bed.NewDovecot(t, testbed.DovecotSetup{})}
	address := func(port int) []string { return []string{fmt.Sprintf("127.0.0.1:%d", port)} }
	cfg := bed.Standard(nil).Without("mx")
	more := mailboxes(nil)
	more.Upstreams[0].Addresses, more.Upstreams[1].Addresses = address(s.dovecot.POP3Proxy), address(s.dovecot.SieveProxy)
	cfg.Upstreams[2].Addresses = address(s.dovecot.IMAPProxy)
	cfg.Upstreams = append(cfg.Upstreams, more.Upstreams...)
	cfg.Listeners = append(cfg.Listeners, more.Listeners...)
	cfg.Guard = map[string]any{"exempt-local": false, "network": "off"}
	cfg.Log = map[string]any{"level": "info"}
	s.p = bed.NewProxy(t, cfg)

	s.run(t, length/5)
	start := s.level(t)
	s.run(t, length-length/5)
	end := s.level(t)

	row := fmt.Sprintf("| %s | %v | %d | %d | %d | %d | %d | %v | %s | %s |", time.Now().UTC().Format("2006-01-02 15:04"), length,
		s.logins.Load(), s.later.Load(), s.guesses.Load(), s.strangers.Load(), s.restarts.Load(),
		s.p.Metric(testbed.MetricBansTotal, nil), start, end)
	fmt.Println(row)
	if s.logins.Load() == 0 || s.guesses.Load() == 0 || s.strangers.Load() == 0 {
		t.Error("somebody never had a turn")
	}
	if end.goroutines > start.goroutines+6 || end.descriptors > start.descriptors+6 {
		t.Errorf("goroutines and descriptors are left over: %v after %v", end, start)
	}
	if end.memory > start.memory*1.25+16<<20 {
		t.Errorf("memory grew: %v after %v", end, start)
	}
	if !t.Failed() {
		note(t, "../docs/reliability.md", row)
	}
}

// A level is what a quiet mailreeve holds.
type level struct{ goroutines, descriptors, memory float64 }

func (l level) String() string {
	return fmt.Sprintf("%v, %v, %.0f MiB", l.goroutines, l.descriptors, l.memory/(1<<20))
}

// level waits until no client is there, and looks. The first few looks give the
// connections to the servers time to end, and the runtime time to return memory.
func (s *soak) level(t *testing.T) level {
	t.Helper()
	testbed.Eventually(t, "all clients to be gone", func() bool {
		return s.p.Metric(testbed.MetricConnections, nil) == 0
	})
	var l level
	lowest := level{goroutines: 1e9, descriptors: 1e9, memory: 1e18}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); runtime.Gosched() {
		l = level{s.p.Metric("go_goroutines", nil), s.p.Metric("process_open_fds", nil), s.p.Metric("process_resident_memory_bytes", nil)}
		lowest = level{min(l.goroutines, lowest.goroutines), min(l.descriptors, lowest.descriptors), min(l.memory, lowest.memory)}
	}
	return lowest
}

// run lets everybody in for a while.
func (s *soak) run(t *testing.T, length time.Duration) {
	t.Helper()
	over := time.Now().Add(length)
	var wait sync.WaitGroup
	loop := func(what func(r *rand.Rand, n int)) {
		seed := rand.Uint64()
		wait.Go(func() {
			r := rand.New(rand.NewPCG(seed, 0))
			for n := 0; time.Now().Before(over) && !t.Failed(); n++ {
				what(r, n)
			}
		})
	}
	for i := range 4 {
		loop(func(r *rand.Rand, n int) { s.person(t, r, fmt.Sprintf("127.80.0.%d", i+1), bed.Users[i]) })
	}
	for range 3 {
		loop(func(r *rand.Rand, n int) { s.guess(r) })
	}
	for range 2 {
		loop(func(r *rand.Rand, n int) { s.stranger(r) })
	}
	restart := time.NewTicker(20 * time.Second)
	defer restart.Stop()
	for time.Now().Add(20*time.Second).Before(over) && !t.Failed() {
		<-restart.C
		s.dovecot.Restart(t)
		s.restarts.Add(1)
	}
	wait.Wait()
}

// person logs in with the right password, somewhere. It may be told to come
// later, while a server restarts, but never that the password is wrong.
func (s *soak) person(t *testing.T, r *rand.Rand, from string, user testbed.User) {
	answer, text, conn := s.p.Guess(pick(r, soakListeners[:]...), from, user.Login, user.Password).Try()
	if conn != nil {
		conn.Close()
	}
	switch answer {
	case testbed.Accepted:
		s.logins.Add(1)
	case testbed.Wrong:
		t.Errorf("%s from %s is told that its password is wrong: %q", user.Login, from, text)
	default:
		s.later.Add(1)
	}
}

// guess tries passwords from one of a thousand addresses, several at a
// connection's port until it is banned.
func (s *soak) guess(r *rand.Rand) {
	from := fmt.Sprintf("127.81.%d.%d", r.IntN(4), 1+r.IntN(250))
	listener := pick(r, soakListeners[:]...)
	for range 15 {
		g := s.p.Guess(listener, from, fmt.Sprintf("victim%d@example.test", r.IntN(300)), fmt.Sprintf("guess%x", r.Uint64()))
		answer, _, _ := g.Try()
		if answer == testbed.Unanswered {
			return
		}
		s.guesses.Add(1)
	}
}

// stranger connects and says nothing, half of something, or nonsense, and ends
// it in one way or another.
func (s *soak) stranger(r *rand.Rand) {
	conn, err := testbed.Dial(fmt.Sprintf("127.82.%d.%d", r.IntN(4), 1+r.IntN(250)), s.p.Port(pick(r, soakListeners[:]...)))
	if err != nil {
		return
	}
	defer conn.Close()
	s.strangers.Add(1)
	conn.Patience = time.Duration(r.IntN(1500)) * time.Millisecond
	switch r.IntN(5) {
	case 0:
		conn.Rest() // as long as its patience lasts
	case 1:
		conn.Send("%s", strings.Repeat("x", r.IntN(20000)))
		conn.Rest()
	case 2:
		conn.Write([]byte{0x16, 3, 1, 2, 0, 1}) // a ClientHello that never ends
		conn.Rest()
	case 3:
		conn.Line()
		conn.Write([]byte("a LOGIN {100}\r\nEHLO x\r\nUSER x\r\nAUTHENTICATE \"PLAIN\" {50}\r\n"))
		conn.Rest()
	case 4: // at once
	}
}

// soakMark is where the next row goes.
const soakMark = "\n<!-- The next soak's row goes above. -->"

// note adds a row to the document.
func note(t *testing.T, path, row string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, after, found := strings.Cut(string(text), soakMark)
	if !found {
		t.Fatalf("%s has no line %q", path, strings.TrimSpace(soakMark))
	}
	if err := os.WriteFile(path, []byte(before+"\n"+row+soakMark+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
