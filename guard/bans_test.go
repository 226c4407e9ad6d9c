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

func (l *farLedger) clear(k key, which func(string) bool) []cleared {
	l.asked <- struct{}{}
	<-l.release
	return l.ledger.clear(k, which)
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
	}, true)
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
