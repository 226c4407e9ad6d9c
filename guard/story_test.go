package guard

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/protocol"
)

// A story is a guard in a bubble of fake time, with helpers that read like
// what happens on the wire.
type story struct {
	*testing.T
	g *Guard
	n int // guesses so far, to make each another one
}

// tell runs a story. Unless edit says otherwise the store is memory, nothing
// is exempt, and nothing is answered for the server.
func tell(t *testing.T, edit func(*Config), f func(s *story)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.ExemptLocal = false
		if edit != nil {
			edit(&cfg)
		}
		g := open(t, cfg, Options{Store: StoreConfig{Kind: "memory"}})
		defer func() {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(&story{T: t, g: g})
	})
}

// storyKey is what guesses are hashed with. Two that no node has both seen are
// told apart by a few bits of the hash: with a key by chance a story would once
// in a while be short of a guess.
const storyKey = "the same key for all the stories"

func open(t *testing.T, cfg Config, opt Options) *Guard {
	t.Helper()
	if opt.Log == nil {
		opt.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	g, err := Open(cfg, opt)
	if err != nil {
		t.Fatal(err)
	}
	g.hashKey = []byte(storyKey)
	return g
}

// from gives a connection to the IMAP listener.
func from(addr string) *Origin {
	return &Origin{Addr: netip.MustParseAddr(addr), Listener: "imaps", Scope: "auth", Protocol: "imap", Upstream: "dovecot"}
}

// mx gives a connection to port 25.
func mx(addr string) *Origin {
	return &Origin{Addr: netip.MustParseAddr(addr), Listener: "mx", Scope: "mx", Protocol: "smtp", Upstream: "postfix"}
}

func plain(login, password string) *protocol.Credential {
	return &protocol.Credential{Mechanism: "PLAIN", Identities: []string{login}, Secret: []byte(password)}
}

// ask asks for a credential to go.
func (s *story) ask(o *Origin, c *protocol.Credential) (*Attempt, protocol.Verdict) {
	s.Helper()
	a, d := s.g.Attempt(context.Background(), o, c)
	if (a != nil) != (d.Verdict == protocol.Pass) {
		s.Fatalf("attempt %v with verdict %v", a, d.Verdict)
	}
	return a, d.Verdict
}

// try sends a credential, with the server's answer, and gives the verdict on
// the attempt, or on the answer if it went.
func (s *story) try(o *Origin, login, password string, out protocol.Outcome) protocol.Verdict {
	s.Helper()
	a, v := s.ask(o, plain(login, password))
	if a == nil {
		return v
	}
	return s.g.Settle(a, out, "").Verdict
}

func (s *story) wrong(addr, login, password string) protocol.Verdict {
	s.Helper()
	return s.try(from(addr), login, password, protocol.Failure)
}

func (s *story) right(addr, login string) protocol.Verdict {
	s.Helper()
	return s.try(from(addr), login, "right", protocol.Success)
}

// logsIn expects a login to reach the server and to succeed.
func (s *story) logsIn(addr, login string) {
	s.Helper()
	a, v := s.ask(from(addr), plain(login, "right"))
	if a == nil {
		s.Fatalf("%s at %s: %v, want to reach the server", login, addr, v)
	}
	if v := s.g.Settle(a, protocol.Success, "").Verdict; v != protocol.Pass {
		s.Fatalf("%s at %s: the server said yes, we say %v", login, addr, v)
	}
}

// guesses sends n different wrong passwords and gives how many reached the
// server.
func (s *story) guesses(addr, login string, n int) (reached int) {
	s.Helper()
	for range n {
		s.n++
		a, _ := s.ask(from(addr), plain(login, fmt.Sprintf("guess %d", s.n)))
		if a != nil {
			reached++
			s.g.Settle(a, protocol.Failure, "NO [AUTHENTICATIONFAILED]")
		}
	}
	return reached
}

func (s *story) admits(o *Origin, want protocol.Verdict) {
	s.Helper()
	if got := s.g.Admit(o); got != want {
		s.Errorf("Admit(%s on %s) = %v, want %v", o.Addr, o.Listener, got, want)
	}
}

func (s *story) want(got, want protocol.Verdict) {
	s.Helper()
	if got != want {
		s.Errorf("verdict %v, want %v", got, want)
	}
}

func TestTenGuessesReachTheServerThenTheAddressIsBanned(t *testing.T) {
	tell(t, nil, func(s *story) {
		for i := range 9 {
			s.want(s.wrong("192.0.2.1", fmt.Sprintf("user%d", i/4), fmt.Sprint(i)), protocol.Pass)
		}
		s.admits(from("192.0.2.1"), protocol.Pass)
		s.want(s.wrong("192.0.2.1", "user0", "the tenth"), protocol.Banned)
		s.admits(from("192.0.2.1"), protocol.Banned)
		s.admits(from("::ffff:192.0.2.1"), protocol.Banned)
		s.admits(mx("192.0.2.1"), protocol.Pass)
		s.admits(from("192.0.2.2"), protocol.Pass)
		s.want(s.try(mx("192.0.2.1"), "user0", "x", protocol.Success), protocol.Refused)

		bans := s.g.Bans(BanFilter{Evidence: true})
		if len(bans) != 1 || bans[0].Rule != "authentication" || bans[0].Scope != "auth" || bans[0].Score != 10 || len(bans[0].Events) != 10 {
			s.Fatalf("bans: %+v", bans)
		}
		time.Sleep(time.Hour - time.Second)
		s.admits(from("192.0.2.1"), protocol.Banned)
		time.Sleep(time.Second)
		s.admits(from("192.0.2.1"), protocol.Pass)
	})
}

func TestZeroOvershootOver500Connections(t *testing.T) {
	tell(t, nil, func(s *story) {
		var mu sync.Mutex
		seen, answered := 0, 0
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				a, d := s.g.Attempt(context.Background(), from("192.0.2.1"), plain(fmt.Sprintf("u%d", i%3), fmt.Sprint(i)))
				if a == nil {
					if d.Verdict != protocol.Banned {
						s.Errorf("verdict %v, want banned", d.Verdict)
					}
					return
				}
				mu.Lock()
				seen++
				mu.Unlock()
				time.Sleep(15 * time.Second)
				if s.g.Settle(a, protocol.Failure, "").Verdict == protocol.Pass {
					mu.Lock()
					answered++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if seen != 10 || answered > 9 {
			s.Errorf("the server saw %d guesses, want 10; %d were answered, want 9", seen, answered)
		}
	})
}

func TestFortyPhonesBehindOneAddressAllGetIn(t *testing.T) {
	tell(t, nil, func(s *story) {
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 40 {
			wg.Go(func() {
				a, d := s.g.Attempt(context.Background(), from("192.0.2.1"), plain(fmt.Sprintf("user%d", i), "right"))
				if a == nil {
					s.Errorf("phone %d: %v", i, d.Verdict)
					return
				}
				time.Sleep(3 * time.Second)
				s.g.Settle(a, protocol.Success, "")
			})
		}
		wg.Wait()
		if took := time.Since(start); took > 30*time.Second {
			s.Errorf("took %v", took)
		}
	})
}

func TestWaitersGiveUpAfterThirtySecondsOrWithTheirClient(t *testing.T) {
	tell(t, nil, func(s *story) {
		for i := range 10 {
			s.ask(from("192.0.2.1"), plain("alice", fmt.Sprint(i)))
		}
		start := time.Now()
		_, v := s.ask(from("192.0.2.1"), plain("alice", "eleventh"))
		if v != protocol.Busy || time.Since(start) != 30*time.Second {
			s.Errorf("%v after %v, want busy after 30s", v, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start = time.Now()
		_, d := s.g.Attempt(ctx, from("192.0.2.1"), plain("alice", "twelfth"))
		if d.Verdict != protocol.Busy || time.Since(start) != time.Second {
			s.Errorf("%v after %v, want busy after 1s", d.Verdict, time.Since(start))
		}
		if n := s.g.queues.waiting(); n != 0 {
			s.Errorf("%d still wait", n)
		}
	})
}

func TestALoginUnderAttackIsClosedToStrangersNotToItsOwner(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.logsIn("198.51.100.7", "owner")
		reached := 0
		for i := range 40 {
			reached += s.guesses(fmt.Sprintf("10.%d.0.1", i), "owner", 1)
		}
		// The trickle may have given out its ticket as well.
		if reached < 20 || reached > 21 {
			s.Errorf("%d guesses reached the server, want 20", reached)
		}
		s.want(s.right("203.0.113.5", "owner"), protocol.Guarded)
		s.logsIn("198.51.100.7", "owner")
		s.logsIn("198.51.100.99", "owner") // the same network
		if l := s.g.Logins(); len(l) != 1 || l[0].Login != "owner" || len(l[0].Places) != 2 {
			s.Errorf("logins: %+v", l)
		}
	})
}

func TestAnOutageBansNobody(t *testing.T) {
	tell(t, nil, func(s *story) {
		for i := range 1000 {
			out := []protocol.Outcome{protocol.Neutral, protocol.Penalty}[i%2]
			if v := s.try(from("192.0.2.1"), fmt.Sprintf("user%d", i%50), fmt.Sprint(i), out); v != protocol.Pass && v != protocol.Busy {
				s.Fatalf("login %d: %v", i, v)
			}
			time.Sleep(time.Second)
		}
		if b := s.g.Bans(BanFilter{Kind: "any"}); len(b) != 0 {
			s.Errorf("bans: %+v", b)
		}
		if w, _ := s.g.Why("192.0.2.1"); len(w.Scores) != 0 {
			s.Errorf("scores: %+v", w.Scores)
		}
	})
}

func TestWhoHangsUpAfterSendingHasGuessed(t *testing.T) {
	tell(t, nil, func(s *story) {
		for i := range 10 {
			s.try(from("192.0.2.1"), "alice", fmt.Sprint(i), protocol.Left)
		}
		s.admits(from("192.0.2.1"), protocol.Banned)
	})
}

func TestAThousandAddressesOfOne64CountAsOne(t *testing.T) {
	tell(t, nil, func(s *story) {
		reached := 0
		for i := range 1000 {
			reached += s.guesses(fmt.Sprintf("2001:db8::%x", i+1), fmt.Sprintf("user%d", i%5), 1)
		}
		if reached != 10 {
			s.Errorf("%d reached the server, want 10", reached)
		}
		s.admits(from("2001:db8::ffff"), protocol.Banned)
		s.admits(from("2001:db8:0:1::1"), protocol.Pass)
	})
}

func TestUnknownRecipientsBanInTheScopeWhereTheyHappened(t *testing.T) {
	tell(t, nil, func(s *story) {
		rcpt := func(addr string, kind protocol.Kind, name string) protocol.Verdict {
			return s.g.Report(mx(addr), "", protocol.Event{Kind: kind, Recipient: name}).Verdict
		}
		for i := range 34 {
			s.want(rcpt("192.0.2.1", protocol.InvalidRcpt, fmt.Sprintf("nobody%d@example.test", i)), protocol.Pass)
			s.want(rcpt("192.0.2.1", protocol.InvalidRcpt, "nobody0@example.test"), protocol.Pass)
			s.want(rcpt("192.0.2.1", protocol.InvalidRcpt, "postmaster@example.test"), protocol.Pass)
		}
		s.want(rcpt("192.0.2.1", protocol.InvalidRcpt, "last@example.test"), protocol.Banned)
		s.admits(mx("192.0.2.1"), protocol.Banned)
		s.admits(from("192.0.2.1"), protocol.Pass)

		// A big sender: one in ten is bad.
		for i := range 100 {
			for j := range 9 {
				rcpt("192.0.2.2", protocol.GoodRcpt, fmt.Sprintf("good%d-%d@example.test", i, j))
			}
			s.want(rcpt("192.0.2.2", protocol.InvalidRcpt, fmt.Sprintf("bad%d@example.test", i)), protocol.Pass)
		}
		// Above five times the limit no share protects.
		for i := 100; i < 174; i++ {
			s.want(rcpt("192.0.2.2", protocol.InvalidRcpt, fmt.Sprintf("bad%d@example.test", i)), protocol.Pass)
		}
		s.want(rcpt("192.0.2.2", protocol.InvalidRcpt, "the-175th@example.test"), protocol.Banned)

		// Nor against relaying.
		for i := range 200 {
			rcpt("192.0.2.3", protocol.GoodRcpt, fmt.Sprintf("good%d@example.test", i))
		}
		for range 11 {
			s.want(rcpt("192.0.2.3", protocol.RelayDenied, "x@elsewhere.test"), protocol.Pass)
		}
		s.want(rcpt("192.0.2.3", protocol.RelayDenied, "x@elsewhere.test"), protocol.Banned)

		// Nor does mail to whom everybody may write to protect.
		for i := range 200 {
			rcpt("192.0.2.4", protocol.GoodRcpt, fmt.Sprintf("postmaster@site%d.test", i))
		}
		for i := range 34 {
			s.want(rcpt("192.0.2.4", protocol.InvalidRcpt, fmt.Sprintf("nobody%d@example.test", i)), protocol.Pass)
		}
		s.want(rcpt("192.0.2.4", protocol.InvalidRcpt, "the-35th@example.test"), protocol.Banned)
	})
}

func TestLoiterersAreBannedAtTheLimit(t *testing.T) {
	tell(t, nil, func(s *story) {
		for i := range 150 {
			want := protocol.Pass
			if i == 149 {
				want = protocol.Banned
			}
			s.want(s.g.Report(from("192.0.2.1"), "", protocol.Event{Kind: protocol.Loitering}).Verdict, want)
			time.Sleep(9 * time.Minute) // 150 in less than a day
		}
	})
}
