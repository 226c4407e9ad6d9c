package guard

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"mailreeve/protocol"
)

func TestWaitersGoInTheOrderInWhichTheyCame(t *testing.T) {
	tell(t, nil, func(s *story) {
		var held []*Attempt
		for i := range 10 {
			a, _ := s.ask(from("192.0.2.1"), plain("alice", fmt.Sprint("held", i)))
			held = append(held, a)
		}
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				a, d := s.g.Attempt(context.Background(), from("192.0.2.1"), plain("alice", fmt.Sprint("waits", i)))
				if a == nil {
					s.Errorf("waiter %d: %v", i, d.Verdict)
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				s.g.Settle(a, protocol.Neutral, "")
			})
			synctest.Wait() // it waits, before the next one comes
		}
		if n := s.g.Status().Waiting; n != 10 {
			s.Errorf("%d wait, want 10", n)
		}
		s.g.Settle(held[0], protocol.Neutral, "")
		wg.Wait()
		if !slices.IsSorted(order) || len(order) != 10 {
			s.Errorf("order %v", order)
		}
	})
}

func TestABanDropsWhoWaitsAtOnce(t *testing.T) {
	tell(t, nil, func(s *story) {
		for i := range 10 {
			s.ask(from("192.0.2.1"), plain("alice", fmt.Sprint("held", i)))
		}
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 50 {
			secret := fmt.Sprint("waits", i%30) // some wait for their like in flight
			wg.Go(func() {
				_, d := s.g.Attempt(context.Background(), from("192.0.2.1"), plain("alice", secret))
				if d.Verdict != protocol.Banned || time.Since(start) != time.Second {
					s.Errorf("waiter %d: %v after %v", i, d.Verdict, time.Since(start))
				}
			})
		}
		time.Sleep(time.Second)
		if _, err := s.g.AddBan(BanRequest{Target: "192.0.2.1", For: Duration(time.Hour)}); err != nil {
			s.Fatal(err)
		}
		wg.Wait()
	})
}

func TestASuccessIsReleasedEvenIfABanFell(t *testing.T) {
	tell(t, nil, func(s *story) {
		a, _ := s.ask(from("192.0.2.1"), plain("alice", "right"))
		b, _ := s.ask(from("192.0.2.1"), plain("bob", "wrong"))
		if _, err := s.g.AddBan(BanRequest{Target: "192.0.2.1"}); err != nil {
			s.Fatal(err)
		}
		s.want(s.g.Settle(a, protocol.Success, "").Verdict, protocol.Pass)
		s.want(s.g.Settle(b, protocol.Failure, "").Verdict, protocol.Banned)
	})
}

func TestBlockedNetworksComeAndGoWithTheConfiguration(t *testing.T) {
	tell(t, func(c *Config) { c.BlockedIP = []string{"192.0.2.0/24", "2001:db8::7"} }, func(s *story) {
		s.admits(mx("192.0.2.77"), protocol.Banned)
		s.admits(from("2001:db8::1"), protocol.Banned)
		s.want(s.right("192.0.2.77", "alice"), protocol.Banned)
		if r, err := s.g.Unban(UnbanRequest{Target: "192.0.2.77"}); err != nil || len(r.Remaining) != 1 || r.Remaining[0].Rule != blockedRule {
			s.Errorf("unban: %+v, %v", r, err)
		}
		// A ban by hand of the same network comes and goes; the block stays.
		if _, err := s.g.AddBan(BanRequest{Target: "192.0.2.0/24", For: Duration(time.Minute)}); err != nil {
			s.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		s.admits(mx("192.0.2.77"), protocol.Banned)

		cfg := DefaultConfig()
		cfg.ExemptLocal = false
		cfg.AllowedIP = []string{"2001:db8::/64"}
		cfg.BlockedIP = []string{"2001:db8::7"}
		if err := s.g.Reconfigure(cfg, Options{}); err != nil {
			s.Fatal(err)
		}
		s.admits(mx("192.0.2.77"), protocol.Pass)
		s.admits(from("2001:db8::1"), protocol.Pass)
		if !s.g.Exempt(netip.MustParseAddr("2001:db8::1")) || s.g.Exempt(netip.MustParseAddr("192.0.2.77")) {
			s.Error("exempt is not what is allowed")
		}
		cfg.BanTime = 0
		if err := s.g.Reconfigure(cfg, Options{}); err == nil || !strings.Contains(err.Error(), "guard.ban-time") {
			s.Errorf("error %v", err)
		}
	})
}

func TestAReloadKeepsPointsUnderTheNewLimit(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.guesses("192.0.2.1", "alice", 4)
		cfg := DefaultConfig()
		cfg.ExemptLocal = false
		cfg.Authentication = Limit{5, Duration(time.Hour)}
		if err := s.g.Reconfigure(cfg, Options{}); err != nil {
			s.Fatal(err)
		}
		if n := s.guesses("192.0.2.1", "alice", 5); n != 1 {
			s.Errorf("%d more guesses, want 1", n)
		}
		s.admits(from("192.0.2.1"), protocol.Banned)
	})
}

func TestALimitLoweredBelowThePointsBansAtTheNextTry(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.guesses("192.0.2.1", "alice", 9)
		cfg := DefaultConfig()
		cfg.ExemptLocal = false
		cfg.Authentication = Limit{5, Duration(time.Hour)}
		if err := s.g.Reconfigure(cfg, Options{}); err != nil {
			s.Fatal(err)
		}
		s.want(s.right("192.0.2.1", "bob"), protocol.Banned)
		if b := s.g.Bans(BanFilter{Evidence: true}); len(b) != 1 || b[0].Score != 9 || len(b[0].Events) != 9 {
			s.Errorf("bans: %+v", b)
		}
	})
}

func TestACrowdOfBanned64sBansTheir48IfConfigured(t *testing.T) {
	tell(t, func(c *Config) { c.WidenAfter = 3 }, func(s *story) {
		for i := range 3 {
			s.admits(from("2001:db8:1:ffff::1"), protocol.Pass)
			s.guesses(fmt.Sprintf("2001:db8:1:%d::1", i), "alice", 10)
			s.g.Unban(UnbanRequest{Target: "alice"})
			s.g.Unban(UnbanRequest{Target: "2001:db8:1::/48", Rule: "network"})
		}
		s.admits(from("2001:db8:1:ffff::1"), protocol.Banned)
		s.admits(from("2001:db8:2::1"), protocol.Pass)
	})
}

func TestARuleOfTheOperatorsOwn(t *testing.T) {
	rule := RuleConfig{
		Name: "noise", Key: "address", Limit: Limit{2, Duration(10 * time.Minute)}, Scope: "all",
		Points: map[protocol.Kind]float64{protocol.BadCommand: 0.4}, Time: Duration(time.Minute),
	}
	tell(t, func(c *Config) { c.Abuse = Limit{}; c.Rules = []RuleConfig{rule} }, func(s *story) {
		for i := range 5 {
			want := protocol.Pass
			if i == 4 {
				want = protocol.Banned
			}
			s.want(s.g.Report(mx("192.0.2.1"), "", protocol.Event{Kind: protocol.BadCommand}).Verdict, want)
		}
		s.admits(from("192.0.2.1"), protocol.Banned)
		time.Sleep(time.Minute)
		s.admits(from("192.0.2.1"), protocol.Pass)
		// After a login the same noise is an ordinary client's.
		for range 20 {
			s.want(s.g.Report(from("192.0.2.2"), "alice", protocol.Event{Kind: protocol.BadCommand}).Verdict, protocol.Pass)
		}
	})
	rule.DryRun = true
	tell(t, func(c *Config) { c.Rules = []RuleConfig{rule} }, func(s *story) {
		for range 5 {
			s.want(s.g.Report(mx("192.0.2.1"), "", protocol.Event{Kind: protocol.BadCommand}).Verdict, protocol.Pass)
		}
		if b := s.g.Bans(BanFilter{}); len(b) != 1 || !b[0].Simulated {
			s.Errorf("bans: %+v", b)
		}
		if n := s.guesses("192.0.2.1", "alice", 12); n != 10 {
			s.Errorf("%d guesses reached the server: another rule's dry run is in the way", n)
		}
	})
}

func TestFollowersSeeWhatHappensAndNoSecret(t *testing.T) {
	tell(t, nil, func(s *story) {
		var mu sync.Mutex
		var got []News
		stop := s.g.Follow(func(e *News) { mu.Lock(); got = append(got, *e); mu.Unlock() })
		s.wrong("192.0.2.1", "alice", "hunter2")
		s.wrong("192.0.2.1", "alice", "hunter2")
		s.right("192.0.2.1", "alice")
		stop()
		s.right("192.0.2.1", "alice")
		mu.Lock()
		defer mu.Unlock()
		if len(got) != 3 || got[0].Outcome != "failure" || got[1].Verdict != "repeated" || got[2].Outcome != "success" {
			s.Errorf("events: %+v", got)
		}
		if strings.Contains(fmt.Sprintf("%+v", got), "hunter2") {
			s.Error("an event holds the password")
		}
	})
}

// Followers are told what rules do not see as well: successes, what was refused,
// which bans began and ended; and nothing of a password that was right.
func TestFollowersAreToldOfBansAndSuccesses(t *testing.T) {
	tell(t, nil, func(s *story) {
		var got []News
		defer s.g.Follow(func(n *News) { got = append(got, *n) })()
		s.right("192.0.2.9", "alice")
		s.g.Report(mx("192.0.2.9"), "alice", protocol.Event{Kind: protocol.BadCommand})
		s.guesses("192.0.2.1", "alice", 11)
		if _, err := s.g.Unban(UnbanRequest{Target: "192.0.2.1"}); err != nil {
			s.Fatal(err)
		}
		count := map[protocol.Kind]int{}
		for _, n := range got {
			count[n.Kind]++
			switch {
			case n.Kind == AuthSuccess && n.Guess != "":
				s.Errorf("a success tells of its password: %+v", n)
			case n.Kind == protocol.BadCommand && !n.LoggedIn:
				s.Errorf("not told that it scored nothing: %+v", n)
			case n.Kind == "ban" && (n.Ban == nil || n.Ban.Rule != "authentication" || n.Addr != netip.MustParseAddr("192.0.2.1")):
				s.Errorf("a ban: %+v", n)
			}
		}
		want := map[protocol.Kind]int{AuthSuccess: 1, protocol.BadCommand: 1, protocol.AuthFailure: 10, "ban": 1, AuthRefused: 1, "unban": 1}
		if diff := cmp.Diff(want, count); diff != "" {
			s.Error(diff)
		}
	})
}

// An alert on a rate must not miss the first time: what can be counted is there
// with 0 before.
func TestCountersAreThereBeforeTheirFirstTime(t *testing.T) {
	tell(t, nil, func(s *story) {
		for name, want := range map[string]int{
			"mailreeve_attempts_total": 5, "mailreeve_attempts_refused_total": 5, "mailreeve_bans_total": 5,
		} {
			if n, err := testutil.GatherAndCount(registryOf(s), name); err != nil || n != want {
				s.Errorf("%s has %d series, %v; want %d", name, n, err, want)
			}
		}
	})
}

func registryOf(s *story) *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(s.g); err != nil {
		s.Fatal(err)
	}
	return r
}

func TestMetricsAreWellFormedAndNameNobody(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.guesses("192.0.2.1", "alice", 12)
		s.g.Report(mx("192.0.2.2"), "", protocol.Event{Kind: protocol.RelayDenied})
		if problems, err := testutil.CollectAndLint(s.g); err != nil || len(problems) > 0 {
			s.Errorf("lint: %v, %v", problems, err)
		}
		r := prometheus.NewPedanticRegistry()
		if err := r.Register(s.g); err != nil {
			s.Fatal(err)
		}
		for _, want := range []string{
			"# HELP mailreeve_bans Bans and guards in force.\n# TYPE mailreeve_bans gauge\n" +
				`mailreeve_bans{kind="ban",rule="authentication",scope="auth",simulated="false"} 1` + "\n",
			"# HELP mailreeve_attempts_waiting Credentials that wait for others to be settled.\n" +
				"# TYPE mailreeve_attempts_waiting gauge\nmailreeve_attempts_waiting 0\n",
		} {
			name := strings.Fields(want)[2]
			if err := testutil.GatherAndCompare(r, strings.NewReader(want), name); err != nil {
				s.Error(err)
			}
		}
		families, err := r.Gather()
		if err != nil {
			s.Fatal(err)
		}
		for _, f := range families {
			if text := f.String(); strings.Contains(text, "192.0.2") || strings.Contains(text, "alice") {
				s.Errorf("a label names somebody: %s", text)
			}
		}
	})
}

func TestLostSourceAddressesAreSaid(t *testing.T) {
	tell(t, nil, func(s *story) {
		for i := range 60 {
			s.try(from("10.0.0.1"), fmt.Sprint("u", i), fmt.Sprint(i), protocol.Failure)
			s.g.Unban(UnbanRequest{Target: "all"})
		}
		if got := s.g.Status().LostSource; got != netip.MustParseAddr("10.0.0.1") {
			s.Errorf("lost source %v", got)
		}
		// Failures from elsewhere say that addresses do get through.
		for i := range 60 {
			s.try(from(fmt.Sprintf("192.0.2.%d", i)), fmt.Sprint("u", i), fmt.Sprint(i), protocol.Failure)
		}
		if got := s.g.Status().LostSource; got.IsValid() {
			s.Errorf("lost source %v after failures from everywhere", got)
		}
	})
}

// What was noticed on port 25 counts as well, and a PROXY peer's own address
// inside its header is as bad as a private one.
func TestALostSourceIsToldWithItsLikelyCause(t *testing.T) {
	for addr, want := range map[string]string{
		"172.17.0.1": "container network", "192.168.1.1": "load balancer", "203.0.113.9": "one of trusted-proxies",
		"127.0.0.1": "on this machine",
	} {
		log := new(strings.Builder)
		cfg := DefaultConfig()
		cfg.Loitering, cfg.ExemptLocal = Limit{1000, Duration(24 * time.Hour)}, false
		g := open(t, cfg, Options{
			Store: StoreConfig{Kind: "memory"}, Log: slog.New(slog.NewTextHandler(log, nil)),
			Trusted: []netip.Prefix{netip.MustParsePrefix("203.0.113.9/32")},
		})
		for range 100 {
			g.Report(mx(addr), "", protocol.Event{Kind: protocol.Loitering})
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), want); n != 1 || g.Status().LostSource != netip.MustParseAddr(addr) {
			t.Errorf("%s: said %d times: %s", addr, n, log)
		}
	}
}

func TestAFalseBanIsCounted(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.guesses("192.0.2.1", "alice", 10)
		s.guesses("192.0.2.2", "bob", 10)
		time.Sleep(time.Hour + 10*time.Second)
		s.logsIn("192.0.2.1", "carol")
		if st := s.g.Status(); st.FalseBans != 1 || st.FalseBanRate != 0.5 {
			s.Errorf("status: %+v", st)
		}
	})
}

func TestAnImportIsAllOrNothing(t *testing.T) {
	tell(t, nil, func(s *story) {
		var requests []BanRequest
		for i := range 300 {
			requests = append(requests, BanRequest{Target: fmt.Sprintf("10.0.%d.%d", i/100, i%100), For: Duration(time.Hour)})
		}
		for _, slip := range []string{"0.0.0.0/0", "8.0.0.0/7", "::/0", "2000::/3"} {
			if _, err := s.g.AddBans(append(requests, BanRequest{Target: slip})); err == nil || s.g.Status().Bans != 0 {
				s.Errorf("with %s: error %v, %d bans", slip, err, s.g.Status().Bans)
			}
		}
		for range 2 {
			if bans, err := s.g.AddBans(requests); err != nil || len(bans) != 300 {
				s.Fatalf("%d bans, %v", len(bans), err)
			}
			if st := s.g.Status(); st.Bans != 300 || st.ByRule[manualRule] != 300 {
				s.Errorf("status: %+v", st)
			}
		}
		time.Sleep(time.Hour + 2*time.Second)
		if st := s.g.Status(); st.Bans != 0 || len(st.ByRule) != 0 {
			s.Errorf("status after: %+v", st)
		}
	})
}
