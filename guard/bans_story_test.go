package guard

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"mailreeve/protocol"
)

func TestBansDoubleAndAreForgottenInTime(t *testing.T) {
	tell(t, nil, func(s *story) {
		lengths := []time.Duration{}
		reached := []int{}
		for range 4 {
			reached = append(reached, s.guesses("192.0.2.1", "alice", 12))
			b := s.g.Bans(BanFilter{})
			if len(b) != 1 {
				s.Fatalf("bans: %+v", b)
			}
			lengths = append(lengths, b[0].Until.Sub(b[0].Since))
			time.Sleep(time.Until(b[0].Until) + time.Hour + time.Second)
		}
		for i, want := range []time.Duration{time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour} {
			if lengths[i] < want || lengths[i] > want*11/10 {
				s.Errorf("ban %d lasted %v, want %v", i, lengths[i], want)
			}
		}
		if want := []int{10, 5, 4, 2}; fmt.Sprint(reached) != fmt.Sprint(want) {
			s.Errorf("guesses that reached the server before each ban: %v, want %v", reached, want)
		}
		time.Sleep(4 * 9 * time.Hour)
		s.guesses("192.0.2.1", "alice", 12)
		if b := s.g.Bans(BanFilter{}); len(b) != 1 || b[0].Count != 1 {
			s.Errorf("after the history: %+v", b)
		}
	})
}

func TestUnbanClearsAllAndSaysWhat(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.guesses("192.0.2.1", "alice", 12)
		s.guesses("192.0.2.9", "bob", 3)
		r, err := s.g.Unban(UnbanRequest{Target: "192.0.2.1"})
		if err != nil || len(r.Bans) != 1 || r.Counters == 0 || r.Points == 0 {
			s.Errorf("removed %+v, %v", r, err)
		}
		s.admits(from("192.0.2.1"), protocol.Pass)
		if w, _ := s.g.Why("192.0.2.1"); len(w.Bans)+len(w.Past) != 0 {
			s.Errorf("why: %+v", w)
		}
		if n := s.guesses("192.0.2.1", "carol", 12); n != 10 {
			s.Errorf("%d guesses after the unban, want 10", n)
		}
		if w, _ := s.g.Why("192.0.2.9"); len(w.Scores) == 0 {
			s.Error("another address lost its points")
		}
	})
}

func TestAllowBeatsBanAtOnce(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.guesses("192.0.2.1", "alice", 12)
		s.admits(from("192.0.2.1"), protocol.Banned)
		if _, err := s.g.Allow(AllowRequest{Target: "192.0.2.0/28", For: Duration(time.Hour)}); err != nil {
			s.Fatal(err)
		}
		s.admits(from("192.0.2.1"), protocol.Pass)
		s.logsIn("192.0.2.1", "alice")
		// Its failures still count for the login.
		if n := s.guesses("192.0.2.1", "bob", 30); n != 20 {
			s.Errorf("%d guesses, want the login's 20", n)
		}
		s.g.SetAllowedNames(map[string][]netip.Addr{"home.example.test": {netip.MustParseAddr("203.0.113.4")}})
		if n := s.guesses("203.0.113.4", "carol", 15); n != 15 {
			s.Errorf("%d guesses from an allowed name, want 15", n)
		}
		time.Sleep(59 * time.Minute)
		if _, err := s.g.AddBan(BanRequest{Target: "192.0.2.0/24", For: Duration(2 * time.Hour)}); err != nil {
			s.Fatal(err)
		}
		s.admits(mx("192.0.2.1"), protocol.Pass)
		s.admits(mx("192.0.2.200"), protocol.Banned)
		time.Sleep(time.Minute)
		s.admits(mx("192.0.2.1"), protocol.Banned)
	})
}

func TestSubscribersHearBeforeTheDecidingCallReturns(t *testing.T) {
	tell(t, nil, func(s *story) {
		var mu sync.Mutex
		var heard []Change
		s.g.Subscribe(func(c Change) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, c)
		})
		changes := func() []Change {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(heard)
		}
		s.guesses("192.0.2.1", "alice", 9)
		if c := changes(); len(c) != 0 {
			s.Fatalf("heard %+v", c)
		}
		s.guesses("192.0.2.1", "alice", 1)
		if c := changes(); len(c) != 1 || c[0].Kind != BanAdded || !c[0].Covers(from("192.0.2.1")) || c[0].Covers(mx("192.0.2.1")) {
			s.Fatalf("heard %+v", c)
		}
		time.Sleep(time.Hour + 2*time.Second)
		if c := changes(); len(c) != 2 || c[1].Kind != BanRemoved {
			s.Fatalf("heard %+v", c)
		}
	})
}
