package guard

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"mailreeve/protocol"
)

// alike gives two passwords of a login that a window takes for one.
func (s *story) alike(addr, login string) (one, other string) {
	s.Helper()
	net := network(from(addr).Addr)
	seen := make(map[uint32]string)
	for i := range 1 << 16 {
		password := fmt.Sprint("alike ", i)
		value := s.g.hashGuess([]string{login}, []byte(password), net).value
		if have, ok := seen[value]; ok {
			return have, password
		}
		seen[value] = password
	}
	s.Fatal("no two of 65,536 passwords have the same 16 bits")
	return "", ""
}

// Different passwords count as different ones, also if their 16 bits are the
// same: the server sees no more than the limit.
func TestGuessesWithTheSameBitsCountAsTwo(t *testing.T) {
	tell(t, nil, func(s *story) {
		one, other := s.alike("192.0.2.1", "alice")
		s.want(s.wrong("192.0.2.1", "alice", one), protocol.Pass)
		s.want(s.wrong("192.0.2.1", "alice", other), protocol.Pass)
		// Each of them still counts once.
		time.Sleep(2 * repeatAnswer)
		s.want(s.wrong("192.0.2.1", "alice", other), protocol.Pass)
		s.want(s.wrong("192.0.2.1", "alice", one), protocol.Pass)
		if got := s.guesses("192.0.2.1", "alice", 7); got != 7 {
			t.Errorf("%d more guesses, want 7", got)
		}
		s.admits(from("192.0.2.1"), protocol.Pass)
		s.guesses("192.0.2.1", "alice", 1)
		s.admits(from("192.0.2.1"), protocol.Banned)
		b := s.g.Bans(BanFilter{Evidence: true})
		if len(b) != 1 || b[0].Score != 10 || b[0].Events[0].Guess != b[0].Events[1].Guess {
			t.Errorf("bans %+v, want ten points, two of them with the same bits", b)
		}
	})
}

// What is told apart is forgotten with the guesses.
func TestGuessesAreForgotten(t *testing.T) {
	tell(t, nil, func(s *story) {
		gs := s.g.guesses
		empty := func(after string) {
			t.Helper()
			gs.mu.Lock()
			defer gs.mu.Unlock()
			if len(gs.m) != 0 || len(gs.byValue) != 0 {
				t.Errorf("after %s %d guesses and %d values are remembered", after, len(gs.m), len(gs.byValue))
			}
		}
		one, other := s.alike("192.0.2.1", "alice")
		s.wrong("192.0.2.1", "alice", one)
		s.wrong("192.0.2.1", "alice", other)
		if _, err := s.g.Unban(UnbanRequest{Target: "192.0.2.1"}); err != nil {
			t.Fatal(err)
		}
		empty("an unban")
		s.wrong("192.0.2.1", "alice", one)
		s.wrong("192.0.2.1", "alice", other)
		time.Sleep(guessMemory + 2*janitorEvery)
		empty("an hour")
		addr, net, now := mustAddr("192.0.2.1"), network(from("192.0.2.1").Addr), s.g.clock.milli()
		for i := range maxGuesses + 10 {
			g := s.g.hashGuess([]string{"bob"}, fmt.Append(nil, i), net)
			gs.begin(&g, addr, net, now, 0)
			gs.end(&g, addr, now, false, true)
		}
		gs.mu.Lock()
		defer gs.mu.Unlock()
		if len(gs.m) != maxGuesses || len(gs.byValue) > len(gs.m) {
			t.Errorf("%d guesses and %d values are remembered, want at most %d", len(gs.m), len(gs.byValue), maxGuesses)
		}
	})
}

func TestTheSameWrongPasswordCountsOnce(t *testing.T) {
	tell(t, nil, func(s *story) {
		for i := range 40 {
			s.logsIn("192.0.2.1", fmt.Sprintf("colleague%d", i))
		}
		reached, repeated := 0, 0
		for range 500 {
			switch a, v := s.ask(from("192.0.2.1"), plain("stale", "old")); {
			case a != nil:
				reached++
				s.g.Settle(a, protocol.Failure, "")
			case v == protocol.Repeated:
				repeated++
			default:
				s.Fatalf("verdict %v", v)
			}
			time.Sleep(20 * time.Second)
		}
		if reached != 167 || repeated != 333 {
			s.Errorf("%d reached the server, %d were answered by us; want one a minute", reached, repeated)
		}
		s.admits(from("192.0.2.1"), protocol.Pass)
		w, err := s.g.Why("192.0.2.1")
		if err != nil {
			s.Fatal(err)
		}
		for _, sc := range w.Scores {
			if sc.Points > 1 {
				s.Errorf("score %+v", sc)
			}
		}
	})
}

func TestIdenticalGuessesInFlightShareOneReservation(t *testing.T) {
	tell(t, nil, func(s *story) {
		var wg sync.WaitGroup
		verdicts := make(chan protocol.Verdict, 50)
		for range 50 {
			wg.Go(func() {
				a, d := s.g.Attempt(context.Background(), from("192.0.2.1"), plain("alice", "same"))
				if a != nil {
					time.Sleep(3 * time.Second)
					s.g.Settle(a, protocol.Failure, "")
				}
				verdicts <- d.Verdict
			})
		}
		wg.Wait()
		close(verdicts)
		count := map[protocol.Verdict]int{}
		for v := range verdicts {
			count[v]++
		}
		if count[protocol.Pass] != 1 || count[protocol.Repeated] != 49 {
			s.Errorf("%v, want one to pass and the rest repeated", count)
		}
	})
}

func TestOnesOwnAccountDoesNotResetTheScore(t *testing.T) {
	tell(t, nil, func(s *story) {
		reached := 0
		for i := range 20 {
			reached += s.guesses("192.0.2.1", "victim", 4)
			s.right("192.0.2.1", "attacker")
			if i > 10 && reached > 10 {
				s.Fatalf("%d guesses reached the server", reached)
			}
		}
		if reached != 10 {
			s.Errorf("%d guesses reached the server, want 10", reached)
		}
		// He logged in from there: the ban is soft, for his own account only.
		s.admits(from("192.0.2.1"), protocol.Soft)
		s.want(s.wrong("192.0.2.1", "victim", "again"), protocol.Refused)
		s.logsIn("192.0.2.1", "attacker")
	})
}
