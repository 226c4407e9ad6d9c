package guard

import (
	"fmt"
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
