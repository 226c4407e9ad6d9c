package guard

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"mailreeve/protocol"
)

// A farLedger is far away when it is told to clear: it stays there until
// released.
type farLedger struct {
	ledger
	asked, release chan struct{}
}

func (l *farLedger) clear(k key, upto int64, which func(string) bool) []cleared {
	l.asked <- struct{}{}
	<-l.release
	return l.ledger.clear(k, upto, which)
}

// While one ban waits for the store of a fleet, another takes no time, and the
// first is in force and told already.
func TestABanWaitsForNoOthersRoundTrip(t *testing.T) {
	tell(t, nil, func(s *story) {
		far := &farLedger{s.g.ledger, make(chan struct{}), make(chan struct{})}
		s.g.ledger = far
		var told []string
		s.g.Subscribe(func(c Change) { told = append(told, c.Prefix.String()) })
		done := make(chan struct{})
		go func() {
			s.guesses("192.0.2.1", "alice", 10)
			close(done)
		}()
		<-far.asked
		s.admits(from("192.0.2.1"), protocol.Banned)
		start := time.Now()
		if _, err := s.g.AddBan(BanRequest{Target: "192.0.2.2"}); err != nil {
			s.Fatal(err)
		}
		if took := time.Since(start); took != 0 {
			s.Errorf("the second ban took %v", took)
		}
		if got := strings.Join(told, " "); got != "192.0.2.1/32 192.0.2.2/32" {
			s.Errorf("told of %s", got)
		}
		far.release <- struct{}{}
		<-done
		if b := s.g.Bans(BanFilter{Evidence: true, Rule: "authentication"}); len(b) != 1 || b[0].Score != 10 || len(b[0].Events) != 10 {
			s.Errorf("bans %+v", b)
		}
	})
}

// Who forgives while the evidence of a ban is still on its way has the last
// word, on disk too.
func TestAnUnbanInTheMiddleOfABanStands(t *testing.T) {
	dir := t.TempDir()
	s := onDisk(t, dir, nil)
	near := s.g.ledger
	far := &farLedger{near, make(chan struct{}), make(chan struct{})}
	s.g.ledger = far
	done := make(chan struct{})
	go func() {
		s.guesses("192.0.2.1", "alice", 10)
		close(done)
	}()
	<-far.asked
	lifted := s.g.lift(func(lift func(*sentence)) {
		lift(s.g.sentences.get(sentenceKey{banned, key{kind: byAddress, prefix: mustAddr("192.0.2.1")}, "auth", false}))
	})
	if len(lifted.Bans) != 1 {
		t.Errorf("lifted %+v", lifted)
	}
	far.release <- struct{}{}
	<-done
	s.g.ledger = near
	s.written()
	s = onDisk(t, s.crash(dir), nil)
	defer s.g.Close()
	s.admits(from("192.0.2.1"), protocol.Pass)
	if w, _ := s.g.Why("192.0.2.1"); len(w.Bans)+len(w.Past) != 0 {
		t.Errorf("why: %+v", w)
	}
}

// A ban by hand that takes the place of a rule's ban, whose evidence is still on
// its way, keeps its own reason and has none of the other's points.
func TestABanByHandInTheMiddleOfABanStands(t *testing.T) {
	tell(t, nil, func(s *story) {
		far := &farLedger{s.g.ledger, make(chan struct{}), make(chan struct{})}
		s.g.ledger = far
		done := make(chan struct{})
		go func() {
			s.guesses("192.0.2.1", "alice", 10)
			close(done)
		}()
		<-far.asked
		time.Sleep(time.Second)
		if _, err := s.g.AddBan(BanRequest{Target: "192.0.2.1", Scope: "auth", Reason: "by hand"}); err != nil {
			s.Fatal(err)
		}
		far.release <- struct{}{}
		<-done
		bans := s.g.Bans(BanFilter{Evidence: true})
		if len(bans) != 1 || bans[0].Rule != manualRule || bans[0].Reason != "by hand" || bans[0].Score != 0 || len(bans[0].Events) != 0 {
			s.Errorf("bans %+v", bans)
		}
	})
}

// Earlier bans make offences weigh more where they were, and only there: not in
// another scope, nor in a dry run.
func TestEarlierBansWeighWhereTheyWere(t *testing.T) {
	tell(t, nil, func(s *story) {
		o := from("192.0.2.1")
		s.guesses("192.0.2.1", "alice", 10)
		time.Sleep(2 * time.Hour)
		p := priors{g: s.g, addr: mustAddr("192.0.2.1"), now: time.Now().UnixMilli()}
		for _, c := range []struct {
			rule rule
			more bool
		}{
			{rule{scope: "auth"}, true}, {rule{scope: "mx"}, false}, {rule{scope: "auth"}, true}, {rule{scope: "auth", dryRun: true}, false},
		} {
			c.rule.consequence, c.rule.limit = banned, 10_000
			if got := p.severe(&c.rule, o, 1000); (got > 1000) != c.more {
				s.Errorf("scope %s, dry run %v: %d thousandths for one point; more than one: want %v", c.rule.scope, c.rule.dryRun, got, c.more)
			}
		}
	})
}

// A ban is one line, with what there is to say of it and nothing that is empty.
func TestABanIsOneLine(t *testing.T) {
	var log bytes.Buffer
	tell(t, nil, func(s *story) {
		s.g.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "until" {
				return slog.Attr{}
			}
			return a
		}}))
		s.guesses("192.0.2.1", "alice", 10)
		s.g.AddBan(BanRequest{Target: "192.0.2.2", For: Forever, Reason: "by hand"})
		s.g.Unban(UnbanRequest{Target: "192.0.2.1"})
	})
	const want = `level=INFO msg=ban target=192.0.2.1 scope=auth rule=authentication score=10 limit=10/1h count=1
level=INFO msg=ban target=192.0.2.2 scope=all rule=manual count=1 reason="by hand"
level=INFO msg=unban target=192.0.2.1 scope=auth rule=authentication why=command
`
	if log.String() != want {
		t.Errorf("got\n%swant\n%s", log.String(), want)
	}
}
