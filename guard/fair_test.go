package guard

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailreeve/protocol"
)

// 2,000 networks try one password each on one login: the server sees the
// limit and what the trickle lets through; the owner at home does not notice,
// and from a new place gets in with patience.
func TestABotnetOnOneLoginMeetsItsBudgetAndItsOwnerGetsIn(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.logsIn("198.51.100.7", "owner")
		time.Sleep(24 * time.Hour)
		start := time.Now()
		reached := 0
		for i := range 2000 {
			reached += s.guesses(fmt.Sprintf("10.%d.%d.1", i/200, i%200), "owner", 1)
			if i%100 == 0 {
				s.logsIn("198.51.100.7", "owner")
			}
			time.Sleep(time.Second)
		}
		most := 20 + int(time.Since(start)/trickleEvery) + 1
		if reached < 20 || reached > most {
			s.Errorf("%d guesses reached the server, want 20 to %d", reached, most)
		}
		for i := 0; ; i++ {
			if i > 100 {
				s.Fatal("the owner did not get in from a new place")
			}
			a, v := s.ask(from("203.0.113.5"), plain("owner", "right"))
			if a != nil {
				s.g.Settle(a, protocol.Success, "")
				break
			}
			s.want(v, protocol.Guarded)
			time.Sleep(10 * time.Second)
		}
		s.logsIn("203.0.113.5", "owner")
	})
}

// The trickle's interval is the operator's to set; 0 lets no stranger through.
func TestTheTrickleRunsAtItsSetting(t *testing.T) {
	for every, want := range map[time.Duration][2]int{
		0:                {0, 0},
		time.Minute:      {59, 61},
		10 * time.Minute: {5, 7},
	} {
		tell(t, func(c *Config) { c.Trickle = Duration(every) }, func(s *story) {
			s.logsIn("198.51.100.7", "owner")
			for i := range 20 {
				s.guesses(fmt.Sprintf("10.0.%d.1", i), "owner", 1)
			}
			reached := 0
			for i := range 720 {
				reached += s.guesses(fmt.Sprintf("10.%d.%d.1", 1+i/200, i%200), "owner", 1)
				time.Sleep(5 * time.Second)
			}
			if reached < want[0] || reached > want[1] {
				s.Errorf("%v: %d guesses of strangers got through in an hour, want %d to %d", every, reached, want[0], want[1])
			}
		})
	}
}

func TestAFamiliarPlaceHasItsOwnSmallBudget(t *testing.T) {
	tell(t, func(c *Config) { c.Authentication, c.Spray, c.Network = Limit{}, Limit{}, Limit{} }, func(s *story) {
		s.logsIn("198.51.100.7", "owner")
		if n := s.guesses("198.51.100.7", "owner", 30); n != 20 {
			s.Errorf("%d guesses from the familiar address, want 20", n)
		}
		if n := s.guesses("198.51.100.8", "owner", 30); n != 20 {
			s.Errorf("%d guesses from its network, want 20", n)
		}
		if n := s.guesses("203.0.113.1", "owner", 30); n < 20 || n > 21 {
			s.Errorf("%d guesses from strangers, want 20", n)
		}
	})
}

func TestASoftBanLetsTheOfficeInAndTheStrangerNot(t *testing.T) {
	tell(t, nil, func(s *story) {
		for i := range 5 {
			s.logsIn("192.0.2.1", fmt.Sprintf("colleague%d", i))
		}
		s.guesses("192.0.2.1", "colleague0", 12)
		s.admits(from("192.0.2.1"), protocol.Soft)
		for i := range 5 {
			s.logsIn("192.0.2.1", fmt.Sprintf("colleague%d", i))
		}
		s.want(s.wrong("192.0.2.1", "boss", "x"), protocol.Refused)
		s.admits(from("192.0.2.9"), protocol.Pass)
	})
}

func TestOneFailureEveryElevenMinutesIsCaught(t *testing.T) {
	tell(t, nil, func(s *story) {
		reached := 0
		for range 40 {
			reached += s.guesses("192.0.2.1", "alice", 1)
			time.Sleep(11 * time.Minute)
		}
		b := s.g.Bans(BanFilter{})
		if reached != 30 && len(b) == 0 {
			s.Errorf("%d guesses, bans %+v", reached, b)
		}
		w, _ := s.g.Why("192.0.2.1")
		if len(w.Bans)+len(w.Past) != 1 {
			s.Errorf("why: %+v", w)
		}
	})
}

func TestSprayingManyLoginsIsCaughtEarly(t *testing.T) {
	tell(t, nil, func(s *story) {
		reached := 0
		for i := range 12 {
			reached += s.guesses("192.0.2.1", fmt.Sprintf("user%d", i), 1)
		}
		if b := s.g.Bans(BanFilter{}); reached != 6 || len(b) != 1 || b[0].Rule != "spray" {
			s.Errorf("%d reached the server, bans %+v", reached, b)
		}
	})
	tell(t, nil, func(s *story) { // those who have logged in there are not sprayed
		for i := range 8 {
			s.logsIn("192.0.2.1", fmt.Sprintf("user%d", i))
			s.guesses("192.0.2.1", fmt.Sprintf("user%d", i), 1)
		}
		if b := s.g.Bans(BanFilter{}); len(b) != 0 {
			s.Errorf("bans %+v", b)
		}
	})
}

func TestANetworkIsRefusedNotBanned(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.logsIn("192.0.2.200", "neighbour")
		reached := 0
		for i := range 100 {
			reached += s.guesses(fmt.Sprintf("192.0.2.%d", i+1), fmt.Sprintf("user%d", i%20), 1)
		}
		if reached != 50 {
			s.Errorf("%d reached the server, want 50", reached)
		}
		if b := s.g.Bans(BanFilter{}); len(b) != 0 {
			s.Errorf("bans %+v", b)
		}
		s.want(s.right("192.0.2.99", "somebody"), protocol.Refused)
		s.logsIn("192.0.2.200", "neighbour")
		s.admits(from("192.0.2.99"), protocol.Pass)
	})
}

func TestAHoneypotLoginBansAtOnceAndReachesNoServer(t *testing.T) {
	tell(t, func(c *Config) {
		c.HoneypotLogins = []string{"Scanner"}
		c.TrapRecipients = []string{"trap@example.test"}
	}, func(s *story) {
		if a, v := s.ask(from("192.0.2.1"), plain("scanner", "x")); a != nil || v != protocol.Banned {
			s.Errorf("attempt %v, verdict %v", a, v)
		}
		s.admits(from("192.0.2.1"), protocol.Banned)
		s.want(s.g.Report(mx("192.0.2.2"), "", protocol.Event{Kind: protocol.InvalidRcpt, Recipient: "Trap@example.test"}).Verdict, protocol.Banned)
		s.admits(mx("192.0.2.2"), protocol.Banned)
	})
}

func TestABrokenPasswordDatabaseBansNobody(t *testing.T) {
	tell(t, nil, func(s *story) {
		home := func(i int) string { return fmt.Sprintf("10.%d.0.1", i) }
		for i := range 30 {
			s.logsIn(home(i), fmt.Sprintf("user%d", i))
		}
		// The database breaks: every phone fails, each with several passwords.
		for round := range 15 {
			for i := range 30 {
				s.wrong(home(i), fmt.Sprintf("user%d", i), fmt.Sprint("app password ", round))
			}
			s.guesses("192.0.2.1", "user0", 1)
			time.Sleep(10 * time.Second)
		}
		if st := s.g.Status(); len(st.Suspended) != 1 || st.Bans != 0 {
			s.Fatalf("status: %+v", st)
		}
		// What is definite still bounds what is forwarded.
		if n := s.guesses("192.0.2.1", "user0", 20); n != 0 {
			s.Errorf("%d more guesses from a stranger", n)
		}
		time.Sleep(6 * time.Minute)
		for i := range 30 {
			s.logsIn(home(i), fmt.Sprintf("user%d", i))
		}
		if st := s.g.Status(); len(st.Suspended) != 0 {
			s.Errorf("status: %+v", st)
		}
		for _, b := range s.g.Bans(BanFilter{}) {
			if b.Target != "192.0.2.1" {
				s.Errorf("banned: %+v", b)
			}
		}
		s.admits(from("192.0.2.1"), protocol.Banned)
	})
}

// An attacker with a few accounts of his own cannot have bans suspended.
func TestNobodyCanProvokeASuspension(t *testing.T) {
	tell(t, nil, func(s *story) {
		for i := range 20 {
			s.right("203.0.113.1", fmt.Sprintf("mine%d", i))
			s.wrong("203.0.113.1", fmt.Sprintf("mine%d", i), "wrong")
		}
		for i := range 500 {
			s.guesses(fmt.Sprintf("10.%d.%d.1", i%250, i/250), fmt.Sprintf("victim%d", i%100), 1)
		}
		if st := s.g.Status(); len(st.Suspended) != 0 {
			s.Errorf("suspended: %v", st.Suspended)
		}
	})
	tell(t, nil, func(s *story) { // one account, whose server knows it by many names
		for i := range 20 {
			s.right(fmt.Sprintf("10.0.%d.1", i), fmt.Sprintf("mine+%d@example.test", i))
			s.wrong(fmt.Sprintf("10.0.%d.1", i), fmt.Sprintf("mine+%d@example.test", i), "wrong")
		}
		s.guesses("192.0.2.1", "victim", 12)
		if st := s.g.Status(); len(st.Suspended) != 0 || st.Bans != 1 {
			s.Errorf("status: %+v", st)
		}
	})
}

func TestFailedDialsDeferBans(t *testing.T) {
	tell(t, nil, func(s *story) {
		for range troubleDials {
			s.g.ReportDial("dovecot", false)
		}
		s.guesses("192.0.2.1", "alice", 12)
		if st := s.g.Status(); len(st.Suspended) != 1 || st.Bans != 0 {
			s.Errorf("status: %+v", st)
		}
		s.g.ReportDial("dovecot", true)
		if st := s.g.Status(); len(st.Suspended) != 0 || st.Bans != 1 {
			s.Errorf("status: %+v", st)
		}
	})
}

func TestPostfixsLostConnectionCountsOnlyUnderThePenalty(t *testing.T) {
	slow := func(s *story, addr, login string, took time.Duration) {
		s.n++
		a, v := s.ask(from(addr), plain(login, fmt.Sprint("p", s.n)))
		if a == nil {
			s.Fatalf("verdict %v", v)
		}
		time.Sleep(took)
		s.g.Settle(a, protocol.Penalty, "454 4.7.0")
	}
	score := func(s *story, addr string) (points float64) {
		w, _ := s.g.Why(addr)
		for _, sc := range w.Scores {
			if sc.Rule == "authentication" {
				points += sc.Points
			}
		}
		return points
	}
	tell(t, nil, func(s *story) {
		slow(s, "192.0.2.1", "alice", 10*time.Second)
		if p := score(s, "192.0.2.1"); p != 0 {
			s.Errorf("without a definite failure before: %v points", p)
		}
		s.guesses("192.0.2.1", "alice", 1)
		slow(s, "192.0.2.1", "alice", 10*time.Second)
		if p := score(s, "192.0.2.1"); p != 1 {
			s.Errorf("while nobody else has an answer: %v points, want 1", p)
		}
		s.logsIn("198.51.100.1", "bob")
		slow(s, "192.0.2.1", "alice", 8*time.Second)
		if p := score(s, "192.0.2.1"); p != 1 {
			s.Errorf("answered fast, as a restarting server does: %v points, want 1", p)
		}
		s.logsIn("198.51.100.1", "bob")
		slow(s, "192.0.2.1", "alice", 10*time.Second)
		if p := score(s, "192.0.2.1"); p != 2 {
			s.Errorf("under the penalty: %v points, want 2", p)
		}
	})
}

func TestAPasswordChangedOnTheServerWorksWithinTheMinute(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.want(s.wrong("192.0.2.1", "alice", "new"), protocol.Pass)
		time.Sleep(30 * time.Second)
		s.want(s.try(from("192.0.2.1"), "alice", "new", protocol.Success), protocol.Repeated)
		time.Sleep(30 * time.Second)
		a, v := s.ask(from("192.0.2.1"), plain("alice", "new"))
		if a == nil {
			s.Fatalf("verdict %v", v)
		}
		s.g.Settle(a, protocol.Success, "")
		s.logsIn("192.0.2.1", "alice")
	})
}

func TestALoginOpenedByHandLetsStrangersIn(t *testing.T) {
	tell(t, nil, func(s *story) {
		for i := range 40 {
			s.guesses(fmt.Sprintf("10.%d.0.1", i), "owner", 1)
		}
		if _, err := s.g.Allow(AllowRequest{Login: "Owner", For: Duration(time.Hour)}); err != nil {
			s.Fatal(err)
		}
		s.logsIn("203.0.113.1", "owner")
		time.Sleep(30 * time.Minute)
		if n, err := s.g.Disallow("owner"); n != 1 || err != nil {
			s.Errorf("%d, %v", n, err)
		}
		s.want(s.right("203.0.114.1", "owner"), protocol.Guarded)
	})
}

func TestKnockingWhileBannedChangesNothing(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.guesses("192.0.2.1", "alice", 10)
		before := fmt.Sprintf("%+v", s.g.Bans(BanFilter{Evidence: true}))
		for i := range 1000 {
			s.wrong("192.0.2.1", "alice", fmt.Sprint(i))
			s.g.Admit(from("192.0.2.1"))
		}
		if after := fmt.Sprintf("%+v", s.g.Bans(BanFilter{Evidence: true})); after != before {
			s.Errorf("before %s\nafter %s", before, after)
		}
	})
}

// A trace is what clients do; played against a guard it gives the decisions.
type step struct {
	after time.Duration
	addr  string
	login string
	pass  string
	ok    bool
	rcpt  string
}

func randomTrace(seed uint64, n int) []step {
	r := rand.New(rand.NewPCG(seed, 1))
	var out []step
	for range n {
		st := step{after: time.Duration(r.IntN(60)) * time.Second, addr: fmt.Sprintf("192.0.%d.%d", r.IntN(3), r.IntN(4)+1), login: fmt.Sprintf("user%d", r.IntN(8)), pass: fmt.Sprint(r.IntN(40))}
		st.ok = r.IntN(12) == 0
		if r.IntN(4) == 0 {
			st.rcpt = fmt.Sprintf("r%d@example.test", r.IntN(100))
		}
		out = append(out, st)
	}
	return out
}

// play gives what became of each step, and the sentences that fell, in order.
func (s *story) play(trace []step) (log []string) {
	for i, st := range trace {
		time.Sleep(st.after)
		log = append(log, fmt.Sprint(i, s.take(st)))
	}
	for _, b := range s.g.Bans(BanFilter{Kind: "any", Sort: "since", Evidence: true}) {
		log = append(log, fmt.Sprint(b.Kind, b.Target, b.Scope, b.Rule, b.Since, b.Score, b.Count))
	}
	return log
}

// take takes one step, and tells whether it was refused, or would have been
// but for the dry run.
func (s *story) take(st step) (refused bool) {
	if st.rcpt != "" {
		if s.g.Admit(mx(st.addr)) == protocol.Banned {
			return true
		}
		d := s.g.Report(mx(st.addr), "", protocol.Event{Kind: protocol.InvalidRcpt, Recipient: st.rcpt})
		return d.Verdict != protocol.Pass || d.Simulated != ""
	}
	if s.g.Admit(from(st.addr)) == protocol.Banned {
		return true
	}
	a, d := s.g.Attempt(context.Background(), from(st.addr), plain(st.login, st.pass))
	if a == nil {
		return d.Verdict != protocol.Repeated
	}
	if st.ok {
		return s.g.Settle(a, protocol.Success, "").Simulated != ""
	}
	d = s.g.Settle(a, protocol.Failure, "")
	return d.Verdict != protocol.Pass || d.Simulated != ""
}

func TestDryRunAndLiveDecideAlike(t *testing.T) {
	for seed := range uint64(4) {
		trace := randomTrace(seed, 1000)
		var live, dry []string
		forever := func(c *Config) {
			c.BanTime, c.GuardTime, c.MaxBanTime = Forever, Forever, Forever // no jitter, and all sentences stay listed
			c.Trickle = 0                                                    // whose draw is random
			if seed%2 == 1 {
				c.Familiar = 0
			}
		}
		tell(t, forever, func(s *story) { live = s.play(trace) })
		tell(t, func(c *Config) { forever(c); c.DryRun = true }, func(s *story) {
			dry = s.play(trace)
			for i := range 20 {
				o := from(fmt.Sprintf("192.0.%d.%d", i%3, i%4+1))
				if v := s.g.Admit(o); v != protocol.Pass {
					s.Errorf("a dry run refuses: %v", v)
				}
			}
		})
		if len(live) < len(trace)+5 {
			t.Errorf("seed %d: only %d bans", seed, len(live)-len(trace))
		}
		if diff := cmp.Diff(live, dry); diff != "" {
			t.Errorf("seed %d: live (-) and dry (+):\n%s", seed, diff)
		}
	}
}

func TestEveryBanOfARandomRunIsExplained(t *testing.T) {
	for seed := range uint64(4) {
		tell(t, nil, func(s *story) {
			s.play(randomTrace(seed+100, 400))
			bans := s.g.Bans(BanFilter{Kind: "any"})
			if len(bans) == 0 {
				s.Fatal("nobody was banned")
			}
			for _, b := range bans {
				target := b.Login
				if b.Prefix.IsValid() {
					target = printPrefix(b.Prefix)
				}
				w, err := s.g.Why(target)
				if err != nil {
					s.Fatal(err)
				}
				explained := false
				for _, wb := range w.Bans {
					if wb.Rule != b.Rule || wb.Target != b.Target || wb.Scope != b.Scope {
						continue
					}
					var sum milli
					for _, e := range wb.Events {
						sum += toMilli(e.Points)
					}
					explained = sum.float() == wb.Score && wb.Score == b.Score
				}
				if !explained {
					s.Errorf("ban %+v is not explained by %+v", b, w.Bans)
				}
			}
			for _, target := range []string{"192.0.0.1", "192.0.1.2", "user1", "192.0.2.0/24"} {
				w, _ := s.g.Why(target)
				for _, sc := range w.Scores {
					var sum milli
					for _, e := range sc.Events {
						sum += toMilli(e.Points)
					}
					if sum.float() != sc.Points {
						s.Errorf("%s %s: %v points, its events have %v", sc.Key, sc.Rule, sc.Points, sum.float())
					}
				}
			}
		})
	}
}

// Everything at once, for the race detector, the invariant being that nothing
// is left in flight and nobody waits.
func TestEverythingAtOnce(t *testing.T) {
	tell(t, func(c *Config) { c.MaxAddresses, c.MaxNetworks, c.MaxLogins = 100, 100, 100 }, func(s *story) {
		s.g.Subscribe(func(Change) {})
		defer s.g.Follow(func(*News) {})()
		var wg sync.WaitGroup
		for n := range 40 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(n), 2))
				for range 40 {
					o := from(fmt.Sprintf("10.0.%d.%d", r.IntN(3), r.IntN(100)))
					switch r.IntN(12) {
					case 0:
						s.g.Unban(UnbanRequest{Target: o.Addr.String()})
					case 1:
						s.g.Report(mx(o.Addr.String()), "", protocol.Event{Kind: protocol.RelayDenied})
					case 2:
						s.g.Allow(AllowRequest{Target: o.Addr.String(), For: Duration(time.Second)})
					case 3:
						s.g.AddBan(BanRequest{Target: o.Addr.String(), For: Duration(time.Second)})
					case 4:
						s.g.Why(o.Addr.String())
						s.g.Status()
						s.g.Top(3)
						s.g.Logins()
					default:
						s.g.Admit(o)
						a, _ := s.g.Attempt(context.Background(), o, plain(fmt.Sprint("u", r.IntN(20)), fmt.Sprint(r.IntN(200))))
						time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
						if a != nil {
							s.g.Settle(a, protocol.Outcome(r.IntN(5)+1), "")
							s.g.Settle(a, protocol.Success, "")
						}
					}
				}
			})
		}
		wg.Wait()
		if n, w := s.g.stats.inFlight.Load(), s.g.queues.waiting(); n != 0 || w != 0 {
			s.Errorf("%d in flight, %d waiting", n, w)
		}
		for k, e := range s.g.memory.entries {
			if e.pending() {
				s.Errorf("%v still has reservations", k)
			}
		}
		for h, gs := range s.g.guesses.m {
			if gs.flight != nil {
				s.Errorf("guess %x is still in flight", h[:2])
			}
		}
	})
}
