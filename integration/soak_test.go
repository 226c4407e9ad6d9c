package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
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

	logins, later, messages, guesses, strangers, restarts, reloads, faults atomic.Int64
}

// soakListeners are the ports at which people log in.
var soakListeners = [...]string{"submission", "submissions", "imap", "imaps", "pop3", "pop3s", "sieve"}

// TestSoak is `make soak`: people, senders, guessers, those who say nothing or
// nonsense, an operator, and a server that is restarted, all at once for the
// time that MAILREEVE_SOAK gives. Once they are gone, what mailreeve holds must
// be what it held after the first fifth: no goroutine, no descriptor, no memory
// more. What it has stored must outlive a kill -9.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("MAILREEVE_SOAK"))
	if err != nil {
		t.Skip("run by make soak only, for MAILREEVE_SOAK, such as 1h")
	}
	s := &soak{dovecot: bed.NewDovecot(t, testbed.DovecotSetup{})}
	s.p = bed.NewProxy(t, s.config())

	s.run(t, length/5)
	start := s.level(t)
	s.run(t, length-length/5)
	end := s.level(t)

	row := fmt.Sprintf("| %s | %v | %d | %d | %d | %d | %d | %d | %d | %v | %s | %s |", time.Now().UTC().Format("2006-01-02 15:04"), length,
		s.logins.Load(), s.later.Load(), s.messages.Load(), s.guesses.Load(), s.strangers.Load(), s.restarts.Load(), s.reloads.Load(),
		s.p.Metric(testbed.MetricBansTotal, nil), start, end)
	fmt.Println(row)
	for _, fault := range append(grown(start, end), s.missing()...) {
		t.Error(fault)
	}
	s.outlives(t)
	if !t.Failed() {
		note(t, "../docs/reliability.md", row)
	}
}

// config is mailreeve with every port, in front of the real servers, with the
// rules of an ordinary installation but for the one by network: here all the
// world is in one.
func (s *soak) config() testbed.Config {
	address := func(port int) []string { return []string{fmt.Sprintf("127.0.0.1:%d", port)} }
	cfg := bed.Standard(nil)
	more := mailboxes(nil)
	more.Upstreams[0].Addresses, more.Upstreams[1].Addresses = address(s.dovecot.POP3Proxy), address(s.dovecot.SieveProxy)
	cfg.Upstreams[2].Addresses = address(s.dovecot.IMAPProxy)
	cfg.Upstreams = append(cfg.Upstreams, more.Upstreams...)
	cfg.Listeners = append(cfg.Listeners, more.Listeners...)
	cfg.Guard = map[string]any{"exempt-local": false, "network": "off"}
	cfg.Log = map[string]any{"level": "info"}
	return cfg
}

// missing tells who never had a turn, and what else makes a soak worthless.
func (s *soak) missing() (faults []string) {
	for _, turn := range []struct {
		who string
		n   int64
	}{
		{"people", s.logins.Load()}, {"senders", s.messages.Load()}, {"guessers", s.guesses.Load()},
		{"strangers", s.strangers.Load()}, {"the operator", s.reloads.Load()},
	} {
		if turn.n == 0 {
			faults = append(faults, turn.who+" never had a turn")
		}
	}
	if n := s.faults.Load(); n > 0 {
		faults = append(faults, fmt.Sprintf("the operator's commands failed %d times", n))
	}
	// Dovecot is away for a tenth of the time at most.
	if s.later.Load() > s.logins.Load()/4 {
		faults = append(faults, fmt.Sprintf("of %d people %d were told to come later", s.logins.Load()+s.later.Load(), s.later.Load()))
	}
	return faults
}

// outlives lets guessers in once more, kills mailreeve, and looks whether its
// bans come back.
func (s *soak) outlives(t *testing.T) {
	t.Helper()
	together(20, func(int) { s.guess(rand.New(rand.NewPCG(rand.Uint64(), 0))) })
	testbed.Eventually(t, "bans", func() bool { return len(s.p.Bans()) > 5 })
	until := map[string]time.Time{}
	for _, ban := range s.p.Bans() {
		until[ban.Target] = ban.Until
	}
	s.p.Kill9()
	s.p.Restart()
	for _, ban := range s.p.Bans() {
		if until[ban.Target].Equal(ban.Until) {
			delete(until, ban.Target)
		}
	}
	for target, end := range until {
		if time.Until(end) > 0 {
			t.Errorf("after kill -9 the ban of %s until %v is gone", target, end)
		}
	}
}

// A level is what a quiet mailreeve holds. heap is what is alive; memory has
// also what the runtime has not given back, and swings by some MiB.
type level struct{ goroutines, descriptors, heap, memory float64 }

func (l level) String() string {
	return fmt.Sprintf("%v, %v, %.1f of %.0f MiB", l.goroutines, l.descriptors, l.heap/(1<<20), l.memory/(1<<20))
}

// grown tells what there is more of at the end than there was at the start.
func grown(start, end level) (faults []string) {
	if end.goroutines > start.goroutines+6 {
		faults = append(faults, fmt.Sprintf("goroutines are left over: %v after %v", end.goroutines, start.goroutines))
	}
	if end.descriptors > start.descriptors+6 {
		faults = append(faults, fmt.Sprintf("descriptors are left over: %v after %v", end.descriptors, start.descriptors))
	}
	if end.heap > start.heap*1.25+4<<20 || end.memory > start.memory*1.25+24<<20 {
		faults = append(faults, fmt.Sprintf("memory grew: %v after %v", end, start))
	}
	return faults
}

// A soak that finds something says so.
func TestSoakVerdict(t *testing.T) {
	start := level{30, 20, 4 << 20, 24 << 20}
	for _, c := range []struct {
		end  level
		want int
	}{
		{level{33, 22, 8 << 20, 40 << 20}, 0}, {level{37, 20, 4 << 20, 24 << 20}, 1}, {level{30, 27, 4 << 20, 24 << 20}, 1},
		{level{30, 20, 10 << 20, 24 << 20}, 1}, {level{30, 20, 4 << 20, 55 << 20}, 1}, {level{300, 200, 40 << 20, 400 << 20}, 3},
	} {
		if faults := grown(start, c.end); len(faults) != c.want {
			t.Errorf("%v after %v: %q, want %d faults", c.end, start, faults, c.want)
		}
	}
	var s soak
	s.logins.Store(10)
	s.later.Store(3)
	s.faults.Store(1)
	if faults := s.missing(); len(faults) != 6 {
		t.Errorf("%q, want four who had no turn, the operator's faults, and too many put off", faults)
	}
}

// level waits until no client is there and has all bans, points and history
// forgotten: they are what mailreeve is to remember, more of them after an hour
// than after a few minutes. Then it takes the least of what it sees until
// memory has been collected a few times, which to look is enough to bring
// about: the connections to the servers end meanwhile, too.
func (s *soak) level(t *testing.T) level {
	t.Helper()
	testbed.Eventually(t, "all clients to be gone", func() bool {
		return s.p.Metric(testbed.MetricConnections, nil) == 0
	})
	s.p.Admin("unban", "all")
	collected := func() float64 { return s.p.Metric("go_gc_duration_seconds_count", nil) }
	lowest := level{goroutines: 1e9, descriptors: 1e9, heap: 1e18, memory: 1e18}
	over := time.Now().Add(30 * time.Second)
	for first := collected(); collected() < first+4 && time.Now().Before(over); {
		lowest.goroutines = min(lowest.goroutines, s.p.Goroutines())
		lowest.descriptors = min(lowest.descriptors, s.p.Metric("process_open_fds", nil))
		lowest.heap = min(lowest.heap, s.p.Metric(testbed.MetricHeapLive, nil))
		lowest.memory = min(lowest.memory, float64(s.p.OwnMemory()))
	}
	if lowest.heap == 0 {
		t.Fatal("mailreeve does not tell what is alive")
	}
	return lowest
}

// run lets everybody in for a while.
func (s *soak) run(t *testing.T, length time.Duration) {
	t.Helper()
	over := time.Now().Add(length)
	var wait sync.WaitGroup
	loop := func(what func(r *rand.Rand)) {
		seed := rand.Uint64()
		wait.Go(func() {
			r := rand.New(rand.NewPCG(seed, 0))
			for time.Now().Before(over) && !t.Failed() {
				what(r)
			}
		})
	}
	for i := range 4 {
		loop(func(r *rand.Rand) { s.person(t, r, fmt.Sprintf("127.80.0.%d", i+1), bed.Users[i]) })
	}
	for range 3 {
		loop(s.guess)
	}
	for range 2 {
		loop(s.stranger)
	}
	loop(s.sender)
	loop(s.operator)
	wait.Go(func() { s.watch(t, over, length) })
	restart := time.NewTicker(20 * time.Second)
	defer restart.Stop()
	for time.Now().Add(20*time.Second).Before(over) && !t.Failed() {
		<-restart.C
		s.dovecot.Restart(t)
		s.restarts.Add(1)
	}
	wait.Wait()
}

// watch prints what mailreeve holds while all of this goes on, for somebody to
// see where something begins to grow.
func (s *soak) watch(t *testing.T, over time.Time, length time.Duration) {
	tick := time.NewTicker(max(length/10, time.Second))
	defer tick.Stop()
	for time.Now().Before(over) && !t.Failed() {
		<-tick.C
		fmt.Printf("%s under load: %v goroutines, %v descriptors, %d MiB its own, %.0f MiB heap; %d logins, %d later, %d messages\n",
			time.Now().UTC().Format("15:04:05"), s.p.Goroutines(), s.p.Metric("process_open_fds", nil), s.p.OwnMemory()>>20,
			s.p.Metric(testbed.MetricHeapLive, nil)/(1<<20), s.logins.Load(), s.later.Load(), s.messages.Load())
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
