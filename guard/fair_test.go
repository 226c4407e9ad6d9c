package guard

import (
	"fmt"
	"testing"
	"time"

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
