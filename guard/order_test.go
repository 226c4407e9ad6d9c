package guard

import (
	"sync/atomic"
	"testing"
	"time"

	"mailreeve/protocol"
)

// order bans by hand, and gives what the guard says of it and then lists.
func (s *story) order(r BanRequest) (Ordered, Ban) {
	s.Helper()
	told, err := s.g.AddBan(r)
	if err != nil {
		s.Fatal(err)
	}
	for _, b := range s.g.Bans(BanFilter{Evidence: true}) {
		if b.Target == told.Target && b.Scope == told.Scope {
			return told, b
		}
	}
	s.Fatalf("the ban of %s is not listed", r.Target)
	return told, Ban{}
}

// Whoever bans again keeps the reason and the later end, unless they say
// otherwise, and is told what was there.
func TestABanByHandTakesOverOneInForce(t *testing.T) {
	tell(t, nil, func(s *story) {
		began := time.Now()
		const target = "192.0.2.1"
		at := func(d time.Duration) time.Time { return began.Add(d) }
		for _, step := range []struct {
			after  time.Duration
			order  BanRequest
			until  time.Time
			reason string
			fresh  bool
		}{
			{0, BanRequest{For: Duration(3 * time.Hour), Reason: "spam"}, at(3 * time.Hour), "spam", true},
			{time.Minute, BanRequest{}, at(3 * time.Hour), "spam", false},
			{150 * time.Minute, BanRequest{}, at(time.Minute + 150*time.Minute + time.Hour), "spam", false},
			{0, BanRequest{For: Duration(10 * time.Minute)}, at(161 * time.Minute), "spam", false},
			{0, BanRequest{Reason: "spam again"}, at(time.Minute + 150*time.Minute + time.Hour), "spam again", false},
			{0, BanRequest{For: Forever}, time.Time{}, "spam again", false},
			{time.Minute, BanRequest{}, time.Time{}, "spam again", false},
			{0, BanRequest{For: Duration(time.Minute)}, at(153 * time.Minute), "spam again", false},
			{2 * time.Minute, BanRequest{}, at(154*time.Minute + time.Hour), "", true},
		} {
			time.Sleep(step.after)
			step.order.Target = target
			var was []Ban
			if !step.fresh {
				was = s.g.Bans(BanFilter{})
			}
			told, listed := s.order(step.order)
			for _, b := range []Ban{told.Ban, listed} {
				if !b.Until.Equal(step.until) || b.Reason != step.reason {
					s.Errorf("%+v: until %v, reason %q; want %v, %q", step.order, b.Until, b.Reason, step.until, step.reason)
				}
			}
			switch {
			case step.fresh && told.Before != nil:
				s.Errorf("%+v: tells of %+v, which is over", step.order, told.Before)
			case !step.fresh && (told.Before == nil || !told.Before.Until.Equal(was[0].Until) || told.Before.Reason != was[0].Reason):
				s.Errorf("%+v: tells of %+v, want %+v", step.order, told.Before, was[0])
			case !step.fresh && !listed.Since.Equal(was[0].Since):
				s.Errorf("%+v: begins anew", step.order)
			}
		}
	})
}

// A ban of a rule that an operator makes their own keeps what led to it, is no
// longer soft, is not lifted with the rule's, and counts as the same one.
func TestABanByHandKeepsWhatLedToTheBanBefore(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.logsIn("192.0.2.1", "alice")
		s.guesses("192.0.2.1", "bob", 10)
		s.admits(from("192.0.2.1"), protocol.Soft)
		told, listed := s.order(BanRequest{Target: "192.0.2.1", Scope: "auth", Reason: "stolen account"})
		s.admits(from("192.0.2.1"), protocol.Banned)
		if told.Before == nil || told.Before.Rule != "authentication" || !told.Before.Soft {
			s.Errorf("it tells of %+v", told.Before)
		}
		if listed.Rule != manualRule || listed.Reason != "stolen account" || listed.Score != 10 || listed.Limit != "10/1h" || len(listed.Events) != 10 || listed.Count != 1 {
			s.Errorf("listed as %+v", listed)
		}
		if n := s.g.Status().BansTotal; n != 1 {
			s.Errorf("%d bans are counted, want 1", n)
		}
		if r, err := s.g.Unban(UnbanRequest{Target: "all", Rule: "authentication"}); err != nil || len(r.Bans) != 0 {
			s.Errorf("unban: %+v, %v", r, err)
		}
		s.admits(from("192.0.2.1"), protocol.Banned)
	})
}

// Not for a moment is it open between the two, and nobody is told that it was.
func TestABanByHandLeavesNoGap(t *testing.T) {
	cfg := DefaultConfig()
	cfg.ExemptLocal = false
	s := &story{T: t, g: open(t, cfg, Options{Store: StoreConfig{Kind: "memory"}})}
	defer s.g.Close()
	if _, err := s.g.AddBan(BanRequest{Target: "192.0.2.1", For: Duration(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	var changes []Change
	s.g.Subscribe(func(c Change) {
		changes = append(changes, c)
		s.admits(from("192.0.2.1"), protocol.Banned)
	})
	var over atomic.Bool
	looked := make(chan int)
	go func() {
		n := 0
		for ; !over.Load(); n++ {
			if v := s.g.Admit(from("192.0.2.1")); v != protocol.Banned {
				t.Errorf("it is let in: %v", v)
				break
			}
		}
		looked <- n
	}()
	for range 200 {
		if _, err := s.g.AddBan(BanRequest{Target: "192.0.2.1", For: Duration(2 * time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	over.Store(true)
	<-looked
	if len(changes) != 200 {
		t.Errorf("%d changes, want 200", len(changes))
	}
	for _, c := range changes {
		if c.Kind != BanAdded {
			t.Fatalf("told of %+v", c)
		}
	}
}
