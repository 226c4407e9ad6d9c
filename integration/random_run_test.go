package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// A deed is one connection of a random run: a login, or a message for somebody
// unknown.
type deed struct {
	after           time.Duration
	from            string
	listener        string
	login, password string
	recipient       string
}

// randomRun draws what a few networks do in a few hours: mostly wrong passwords,
// some of them again and again, now and then the right one.
func randomRun(r *rand.Rand, n int) []deed {
	var run []deed
	for range n {
		user := bed.Users[r.IntN(8)]
		d := deed{
			// Never none: the clock tells the deeds apart.
			after:    time.Duration(1+r.IntN(60)) * time.Second,
			from:     fmt.Sprintf("127.58.%d.%d", r.IntN(3), r.IntN(5)+1),
			listener: []string{"imaps", "submissions"}[r.IntN(2)],
			login:    user.Login, password: bed.Secrets.New(fmt.Sprintf("run%d", r.IntN(30))),
		}
		switch r.IntN(12) {
		case 0:
			d.password = user.Password
		case 1, 2, 3:
			d.listener, d.recipient = "mx", fmt.Sprintf("nobody%d@example.test", r.IntN(100))
		}
		run = append(run, d)
	}
	return run
}

// randomRules ban early and for ever, so that a short run has many bans of all
// kinds and none of their ends, which are drawn at random.
func randomRules(dry bool) map[string]any {
	return map[string]any{
		"authentication": "6/1h", "authentication-slow": "9/7d", "login": "12/1h", "spray": "5/1h", "network": "20/1h",
		"invalid-rcpt": "4/1d", "trickle": "0", "dry-run": dry,
		"ban-time": "forever", "guard-time": "forever", "max-ban-time": "forever",
	}
}

// A runner does a run's deeds.
type runner struct {
	*testbed.Proxy
	log string
	// at is when each deed was done, by the guard's clock.
	at []time.Time
}

func newRunner(t *testing.T, guessKey string, start time.Time, dry bool) *runner {
	t.Helper()
	r := &runner{log: filepath.Join(bed.TempDir(t), "events.jsonl")}
	cfg := bed.Standard(randomRules(dry))
	cfg.Events = map[string]any{"log": r.log}
	cfg.Store = map[string]any{"guess-key": guessKey}
	r.Proxy = bed.NewProxyWithClock(t, cfg)
	r.SetClock(start)
	return r
}

// do does the deeds one after the other.
func (r *runner) do(run []deed) {
	for _, d := range run {
		r.Pass(d.after)
		r.at = append(r.at, r.Now())
		if d.recipient == "" {
			r.Guess(d.listener, d.from, d.login, d.password).Answer()
			continue
		}
		if conn, err := r.Guess("mx", d.from, "", "").Open(); err == nil { // who is banned gets none
			conn.SMTP("MAIL FROM:<%s>", envelopeFrom)
			conn.SMTP("RCPT TO:<%s>", d.recipient)
			conn.Close()
		}
	}
}

// refused tells which deeds came to nothing, or would have but for the dry run:
// by rule, "" if none stood in the way.
func (r *runner) refused(t *testing.T, dry bool) []string {
	t.Helper()
	r.Stop() // so that the log is whole
	file, err := os.Open(r.log)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	type event struct {
		Time                time.Time
		Kind, Verdict, Rule string
	}
	told := map[int64]event{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(e.Kind, "auth-") || e.Kind == "invalid-rcpt" {
			told[e.Time.UnixMilli()] = e
		}
	}
	var out []string
	for i, at := range r.at {
		e, seen := told[at.UnixMilli()]
		passed := e.Verdict == "pass" || e.Verdict == "repeated"
		switch {
		case !seen && dry:
			t.Errorf("the log tells nothing of deed %d", i)
		case !seen:
			e.Rule = "not let in"
		case !passed && dry:
			t.Errorf("deed %d met a verdict in a dry run: %+v", i, e)
		case passed && !dry:
			e.Rule = ""
		}
		out = append(out, e.Rule)
	}
	return out
}

// A fullBan is a ban with its evidence, as `bans` and `why` tell it.
type fullBan struct {
	Kind, Target, Scope, Rule, Limit string
	Since                            time.Time
	Count                            int
	Score                            float64
	Soft, Simulated                  bool
	Events                           []struct{ Points float64 }
}

func (b *fullBan) name() string { return fmt.Sprint(b.Kind, " ", b.Target, " ", b.Scope) }

func (b *fullBan) String() string {
	return fmt.Sprint(b.name(), " ", b.Rule, " ", b.Since.UnixMilli(), " ", b.Score, " of ", b.Limit, " #", b.Count, " ", b.Soft)
}

func (r *runner) bans(t *testing.T) map[string]*fullBan {
	t.Helper()
	var list []*fullBan
	if err := json.Unmarshal([]byte(r.Admin("bans", "--kind", "any", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	out := map[string]*fullBan{}
	for _, b := range list {
		out[b.name()] = b
	}
	return out
}

// The same deeds, one after the other, with the rules in force and in a dry run:
// the same bans fall, at the same moments, for the same reasons; and whoever is
// refused by the one would have been by the other. Every ban is what the events
// that `why` shows of it add up to.
func TestARandomRunIsJudgedAlikeInADryRunAndExplained(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	run := randomRun(rand.New(rand.NewPCG(seed, 0)), 120)
	guessKey := filepath.Join(bed.TempDir(t), "guess.key")
	if err := os.WriteFile(guessKey, []byte(strings.Repeat("k", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	start := time.Now().Add(time.Hour) // later than either proxy's start
	live, dry := newRunner(t, guessKey, start, false), newRunner(t, guessKey, start, true)
	var both sync.WaitGroup
	both.Go(func() { live.do(run) })
	both.Go(func() { dry.do(run) })
	both.Wait()

	fell, would := live.bans(t), dry.bans(t)
	if len(fell) < 5 {
		t.Errorf("only %d bans in the run: %v", len(fell), slices.Collect(maps.Values(fell)))
	}
	for _, name := range slices.Sorted(maps.Keys(fell)) {
		if w := would[name]; w == nil || w.String() != fell[name].String() || !w.Simulated {
			t.Errorf("fell  %v\nwould %v", fell[name], w)
		}
	}
	for name, w := range would {
		if fell[name] == nil {
			t.Errorf("would have fallen, and did not: %v", w)
		}
	}
	for _, r := range []*runner{live, dry} {
		for _, b := range r.bans(t) {
			r.explain(t, b)
		}
	}
	is, wouldBe := live.refused(t, false), dry.refused(t, true)
	for i := range run {
		if (is[i] == "") != (wouldBe[i] == "") {
			t.Errorf("deed %d (%+v) is refused by %q, would be by %q", i, run[i], is[i], wouldBe[i])
		}
	}
}

// explain adds up what why shows of a ban.
func (r *runner) explain(t *testing.T, b *fullBan) {
	t.Helper()
	var why struct{ Bans []*fullBan }
	if err := json.Unmarshal([]byte(r.Admin("why", b.Target, "--json")), &why); err != nil {
		t.Fatal(err)
	}
	for _, w := range why.Bans {
		if w.name() != b.name() {
			continue
		}
		milli := 0
		for _, e := range w.Events {
			milli += int(e.Points*1000 + 0.5)
		}
		if score := float64(milli) / 1000; score != b.Score || w.Score != b.Score || score == 0 {
			t.Errorf("%v: its %d events add up to %v", b, len(w.Events), score)
		}
		return
	}
	t.Errorf("why %s does not tell of %v", b.Target, b)
}
