package guard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailreeve/protocol"
)

// onDisk opens a guard on a directory, as after a start of the program.
func onDisk(t *testing.T, dir string, now func() time.Time) *story {
	t.Helper()
	cfg := DefaultConfig()
	cfg.ExemptLocal = false
	return &story{T: t, g: open(t, cfg, Options{Store: StoreConfig{Kind: "embedded", Path: dir}, Now: now})}
}

// crash copies the store as it is on disk, as after kill -9, and closes the
// old process's guard only then.
func (s *story) crash(dir string) string {
	s.Helper()
	next := s.TempDir()
	for _, name := range []string{storeFile, "guess.key"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) && name != storeFile {
			continue // it is kept elsewhere
		}
		if err != nil {
			s.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(next, name), data, 0o600); err != nil {
			s.Fatal(err)
		}
	}
	if err := s.g.Close(); err != nil {
		s.Fatal(err)
	}
	return next
}

// written waits until all that is decided is on disk.
func (s *story) written() {
	s.Helper()
	s.g.flush()
	<-s.g.writer.keep(record{bucket: bucketAllow, key: "no such"})
}

func TestWhatWasEnforcedSurvivesACrash(t *testing.T) {
	dir := t.TempDir()
	s := onDisk(t, dir, nil)
	s.logsIn("198.51.100.7", "owner")
	s.guesses("192.0.2.1", "alice", 10)
	s.guesses("192.0.2.2", "bob", 7)
	if _, err := s.g.AddBan(BanRequest{Target: "2001:db8::/32", Scope: "mx", For: Forever, Reason: "by hand"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.g.Allow(AllowRequest{Target: "203.0.113.0/24", For: Duration(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	before := s.g.Bans(BanFilter{Evidence: true})
	s.written()
	dir = s.crash(dir)

	s = onDisk(t, dir, nil)
	defer s.g.Close()
	after := s.g.Bans(BanFilter{Evidence: true})
	if fmt.Sprint(len(before)) != fmt.Sprint(len(after)) || len(after) != 2 {
		t.Fatalf("bans before %+v, after %+v", before, after)
	}
	for i := range after {
		if !after[i].Until.Equal(before[i].Until) || after[i].Score != before[i].Score || len(after[i].Events) != len(before[i].Events) || after[i].Reason != before[i].Reason {
			t.Errorf("ban before %+v, after %+v", before[i], after[i])
		}
	}
	s.admits(from("192.0.2.1"), protocol.Banned)
	s.admits(mx("2001:db8:1::1"), protocol.Banned)
	if n := s.guesses("192.0.2.2", "carol", 10); n != 3 {
		t.Errorf("%d more guesses of a counted address, want 3", n)
	}
	if got := s.g.Allowed(); len(got) != 1 || got[0].Prefix.String() != "203.0.113.0/24" {
		t.Errorf("allowed: %+v", got)
	}
	if p := s.g.places.of("owner"); len(p) != 1 {
		t.Errorf("familiar places: %+v", p)
	}
	if st := s.g.Status().Store; !st.Healthy || st.Recovered != "" {
		t.Errorf("store: %+v", st)
	}
}

func TestAnUnbanSurvivesACrash(t *testing.T) {
	dir := t.TempDir()
	s := onDisk(t, dir, nil)
	s.guesses("192.0.2.1", "alice", 10)
	if _, err := s.g.Unban(UnbanRequest{Target: "192.0.2.1"}); err != nil {
		t.Fatal(err)
	}
	s.written()
	s = onDisk(t, s.crash(dir), nil)
	defer s.g.Close()
	s.admits(from("192.0.2.1"), protocol.Pass)
	w, _ := s.g.Why("192.0.2.1")
	if len(w.Past)+len(w.Bans) != 0 {
		t.Errorf("why: %+v", w)
	}
	for _, sc := range w.Scores {
		if sc.Rule != "network" { // the network's own points are another target
			t.Errorf("score left: %+v", sc)
		}
	}
}

func TestAnAttemptInFlightAtTheCrashHasCounted(t *testing.T) {
	dir := t.TempDir()
	s := onDisk(t, dir, nil)
	for i := range 6 {
		s.ask(from("192.0.2.1"), plain("alice", fmt.Sprint(i)))
	}
	s.written()
	s = onDisk(t, s.crash(dir), nil)
	defer s.g.Close()
	if n := s.guesses("192.0.2.1", "carol", 10); n != 4 {
		t.Errorf("%d guesses after the crash, want 4", n)
	}
}

func TestNoPasswordAndNoWholeHashIsStored(t *testing.T) {
	dir := t.TempDir()
	s := onDisk(t, dir, nil)
	const secret = "correct horse battery staple"
	a, _ := s.ask(from("192.0.2.1"), plain("alice", secret))
	hash := a.try.guess.hash
	s.g.Settle(a, protocol.Failure, "535 5.7.8")
	s.written()
	if err := s.g.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, storeFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{[]byte(secret), hash[:4], fmt.Appendf(nil, "%x", hash[:4])} {
		if bytes.Contains(data, bad) {
			t.Errorf("the store holds %q", bad)
		}
	}
	if !bytes.Contains(data, []byte("alice")) {
		t.Error("the store does not hold the evidence, so this test shows nothing")
	}
	if info, _ := os.Stat(filepath.Join(dir, "guess.key")); info.Mode().Perm() != 0o600 {
		t.Errorf("guess.key has mode %v", info.Mode())
	}
}

func TestADamagedFileIsPutAsideAndSaidLoudly(t *testing.T) {
	intact := t.TempDir()
	s := onDisk(t, intact, nil)
	for i := range 200 {
		if _, err := s.g.AddBan(BanRequest{Target: fmt.Sprintf("192.0.2.%d", i+1), For: Forever}); err != nil {
			t.Fatal(err)
		}
	}
	s.written()
	if err := s.g.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(intact, storeFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"empty header":   func(b []byte) []byte { clear(b[:8192]); return b },
		"cut short":      func(b []byte) []byte { return b[:5*os.Getpagesize()] },
		"cut to nothing": func([]byte) []byte { return nil },
		"a flipped bit": func(b []byte) []byte {
			i := bytes.Index(b, []byte("manual"))
			b[i] ^= 1
			return b
		},
		"garbage": func(b []byte) []byte { return bytes.Repeat([]byte("garbage "), len(b)/8) },
		"one page of many": func(b []byte) []byte {
			i := bytes.Index(b, []byte("manual")) / os.Getpagesize() * os.Getpagesize()
			clear(b[i : i+os.Getpagesize()])
			return b
		},
		"pages of nothing": func(b []byte) []byte {
			clear(b[16384:])
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, storeFile), damage(bytes.Clone(whole)), 0o600); err != nil {
				t.Fatal(err)
			}
			var said bytes.Buffer
			cfg := DefaultConfig()
			g, err := Open(cfg, Options{Store: StoreConfig{Kind: "embedded", Path: dir}, Log: slog.New(slog.NewTextHandler(&said, nil))})
			if err != nil {
				t.Logf("a clear error: %v", err)
				return
			}
			st := g.Status()
			aside, _ := filepath.Glob(filepath.Join(dir, storeFile+".damaged-*"))
			if len(aside) != 1 || st.Store.Recovered == "" || !strings.Contains(said.String(), "damaged") {
				t.Errorf("files aside: %v; status %+v; said %q", aside, st.Store, said.String())
			}
			t.Logf("%d of 200 bans saved", st.Bans)
			if name == "a flipped bit" && st.Bans != 199 {
				t.Errorf("%d bans saved, want 199", st.Bans)
			}
			if name == "one page of many" && (st.Bans < 100 || st.Bans == 200) {
				t.Errorf("%d bans saved of 200 with one page lost, want most of them", st.Bans)
			}
			if err := g.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := Open(cfg, Options{Store: StoreConfig{Kind: "embedded", Path: dir}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if n := again.Status(); n.Bans != st.Bans || n.Store.Recovered != "" {
				t.Errorf("after another start: %d bans, want %d; %+v", n.Bans, st.Bans, n.Store)
			}
		})
	}
}

// A file that the system does not let us use is not damaged: it stays where it
// is.
func TestAFileThatCannotBeUsedIsNotPutAside(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, storeFile), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Open(DefaultConfig(), Options{Store: StoreConfig{Kind: "embedded", Path: dir}})
	if err == nil || !strings.Contains(err.Error(), "is a directory") || strings.Contains(err.Error(), "damaged") {
		t.Errorf("error %v, want that it is a directory", err)
	}
	if aside, _ := filepath.Glob(filepath.Join(dir, "*.damaged-*")); len(aside) > 0 {
		t.Errorf("put aside: %v", aside)
	}
}

func TestTwoProcessesOnOneStoreIsAClearError(t *testing.T) {
	dir := t.TempDir()
	s := onDisk(t, dir, nil)
	defer s.g.Close()
	_, err := Open(DefaultConfig(), Options{Store: StoreConfig{Kind: "embedded", Path: dir}})
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("error %v", err)
	}
}

// A failing backend refuses writes while full is set.
type failingBackend struct {
	fail chan error // has one element while writes fail
	kept chan []record
}

func (b *failingBackend) write(r []record) error {
	select {
	case err := <-b.fail:
		b.fail <- err
		return err
	default:
	}
	b.kept <- r
	return nil
}

func (b *failingBackend) close() error { return nil }

func TestAFullDiskDoesNotStopEnforcementAndIsSaid(t *testing.T) {
	tell(t, nil, func(s *story) {
		b := &failingBackend{fail: make(chan error, 1), kept: make(chan []record, 100)}
		b.fail <- errors.New("no space left on device")
		s.g.writer = newWriter(b, s.g.log)
		start := time.Now()
		s.guesses("192.0.2.1", "alice", 10)
		if took := time.Since(start); took != durableWait {
			s.Errorf("the deciding call waited %v, want %v", took, durableWait)
		}
		s.admits(from("192.0.2.1"), protocol.Banned)
		if st := s.g.Status().Store; st.Healthy || !strings.Contains(st.Error, "no space") || st.Pending == 0 {
			s.Errorf("status: %+v", st)
		}
		<-b.fail
		time.Sleep(2 * time.Second)
		if st := s.g.Status().Store; !st.Healthy || st.Pending != 0 {
			s.Errorf("status after: %+v", st)
		}
		bans := 0
		for len(b.kept) > 0 {
			for _, r := range <-b.kept {
				if r.bucket == bucketBans {
					bans++
				}
			}
		}
		if bans != 1 {
			s.Errorf("%d bans written, want 1", bans)
		}
	})
}

func TestAClockSetBackMakesNoBanEternal(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := func() time.Time { return at }
	dir := t.TempDir()
	s := onDisk(t, dir, now)
	s.guesses("192.0.2.1", "alice", 10)
	at = at.Add(-time.Hour)
	s.g.clock.now()
	at = at.Add(59 * time.Minute)
	s.g.clock.now()
	s.admits(from("192.0.2.1"), protocol.Banned)
	at = at.Add(time.Minute)
	s.g.clock.now()
	s.admits(from("192.0.2.1"), protocol.Pass)

	// The same over a restart.
	s.guesses("192.0.2.1", "alice", 10)
	b := s.g.Bans(BanFilter{})
	if len(b) != 1 {
		t.Fatalf("bans %+v", b)
	}
	length := b[0].Until.Sub(b[0].Since)
	s.written()
	dir = s.crash(dir)
	at = at.Add(-24 * time.Hour)
	s = onDisk(t, dir, now)
	defer s.g.Close()
	s.admits(from("192.0.2.1"), protocol.Banned)
	at = at.Add(length)
	s.g.clock.now()
	s.admits(from("192.0.2.1"), protocol.Pass)
}

// Who has nothing to have written waits for what others have, and else for
// nothing.
func TestNothingToWriteIsNotWaitedFor(t *testing.T) {
	b := &failingBackend{fail: make(chan error), kept: make(chan []record, 1)}
	w := newWriter(b, slog.New(slog.DiscardHandler))
	defer w.close()
	select {
	case <-w.keep():
	default:
		t.Error("it waits, and nothing is on its way")
	}
}
