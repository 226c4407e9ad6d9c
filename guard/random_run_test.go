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
