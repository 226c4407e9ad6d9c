package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

func someNews(i int) *guard.News {
	return &guard.News{Event: guard.Event{
		Time: time.Unix(1_800_000_000+int64(i), 0), Kind: protocol.AuthFailure, Addr: netip.MustParseAddr("192.0.2.1"),
		Login: fmt.Sprintf("user%d", i), Outcome: "failure", Guess: "0a1b",
	}}
}

func startLog(t *testing.T, cfg EventsConfig) (*eventHub, *bytes.Buffer) {
	t.Helper()
	hub, said := new(eventHub), new(bytes.Buffer)
	l, err := openEventLog(cfg, hub, slog.New(slog.NewTextHandler(said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	hub.log.Store(l)
	return hub, said
}

func stopLog(t *testing.T, hub *eventHub) {
	t.Helper()
	if err := hub.use(nil); err != nil {
		t.Fatal(err)
	}
}

// logins gives the logins of the events in files, as replay reads them.
func logins(t *testing.T, files ...string) (logins []string, unreadable int) {
	t.Helper()
	unreadable, _, err := eachEvent(files, func(n *guard.News) error {
		logins = append(logins, n.Login)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return logins, unreadable
}

// The log is put aside when it is large enough, the oldest goes, and what is
// left is read in order however the files are named.
func TestEventLogRotates(t *testing.T) {
	cfg := EventsConfig{Log: filepath.Join(t.TempDir(), "events.jsonl"), MaxMegabytes: 1, Keep: 2}
	hub, _ := startLog(t, cfg)
	line, err := json.Marshal(someNews(0))
	if err != nil {
		t.Fatal(err)
	}
	const batches, batch = 40, 500 // well below the queue
	for i := range batches {
		for j := range batch {
			hub.note(someNews(i*batch + j))
		}
		awaitWritten(t, hub, uint64((i+1)*batch))
	}
	stopLog(t, hub)
	if hub.dropped.Load() != 0 {
		t.Errorf("%d events were dropped", hub.dropped.Load())
	}
	files, err := filepath.Glob(cfg.Log + "*")
	if err != nil || len(files) != 3 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 || info.Size() > 1<<20 {
			t.Errorf("%s has mode %v and %d bytes", name, info.Mode(), info.Size())
		}
	}
	got, unreadable := logins(t, files...)
	if least := 2 << 20 / len(line) / 2; unreadable != 0 || len(got) < least || len(got) > batches*batch {
		t.Fatalf("%d events are left, at least %d were kept; %d unreadable", len(got), least, unreadable)
	}
	for i, login := range got {
		if want := fmt.Sprintf("user%d", batches*batch-len(got)+i); login != want {
			t.Fatalf("event %d is of %s, want %s", i, login, want)
		}
	}
}

func awaitWritten(t *testing.T, hub *eventHub, n uint64) {
	t.Helper()
	end := time.After(10 * time.Second)
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for hub.written.Load()+hub.dropped.Load() < n {
		select {
		case <-end:
			t.Fatalf("%d of %d events were written", hub.written.Load(), n)
		case <-again.C:
		}
	}
}

// A crash leaves half a line. It stays alone: what is written next begins a
// line of its own.
func TestEventLogGoesOnAfterHalfALine(t *testing.T) {
	cfg := EventsConfig{Log: filepath.Join(t.TempDir(), "events.jsonl"), MaxMegabytes: 1, Keep: 1}
	for i := range 2 {
		hub, _ := startLog(t, cfg)
		hub.note(someNews(i))
		stopLog(t, hub)
		f, err := os.OpenFile(cfg.Log, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(`{"time":"2026-`); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	got, unreadable := logins(t, cfg.Log)
	if strings.Join(got, " ") != "user0 user1" || unreadable != 2 {
		t.Errorf("events of %v, %d unreadable", got, unreadable)
	}
}

// While nothing can be written events are lost, which is counted, said once and
// written down once it works again; who notes events never waits.
func TestEventLogCountsWhatItLoses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	cfg := EventsConfig{Log: filepath.Join(dir, "events.jsonl"), MaxMegabytes: 1, Keep: 1}
	if _, err := openEventLog(cfg, new(eventHub), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "events.log") {
		t.Errorf("a log that cannot be opened: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		hub, said := startLog(t, cfg)
		l := hub.log.Load()
		synctest.Wait()
		l.file.Close() // the writer does not look at it while it waits
		for i := range 5 {
			hub.note(someNews(i))
			synctest.Wait()
		}
		if n := hub.dropped.Load(); n != 5 || !hub.failing.Load() {
			t.Errorf("%d dropped, failing %v", n, hub.failing.Load())
		}
		time.Sleep(2 * eventRetry)
		hub.note(someNews(6))
		synctest.Wait()
		if hub.failing.Load() {
			t.Error("it does not write again")
		}
		stopLog(t, hub)
		if n := strings.Count(said.String(), "does not take writes"); n != 1 {
			t.Errorf("said %d times: %s", n, said)
		}
		var lost int64
		_, lost, err := eachEvent([]string{cfg.Log}, func(*guard.News) error { return nil })
		if err != nil || lost != 5 {
			t.Errorf("the log tells of %d lost events, %v", lost, err)
		}
	})
}

// Who asks gets the latest and then every other, each once.
func TestLatestEventsAndThoseThatFollow(t *testing.T) {
	hub := new(eventHub)
	for i := range recentEvents + 10 {
		hub.note(someNews(i))
	}
	var after []guard.News
	latest, stop := hub.follow(3, func(n *guard.News) { after = append(after, *n) })
	hub.note(someNews(recentEvents + 10))
	accepted := someNews(0)
	accepted.Kind, accepted.Login = protocol.GoodRcpt, "accepted" // is not remembered
	hub.note(accepted)
	stop()
	hub.note(someNews(recentEvents + 11))
	var got []string
	for _, n := range append(latest, after...) {
		got = append(got, n.Login)
	}
	if want := "user1007 user1008 user1009 user1010 accepted"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if all, _ := hub.follow(recentEvents, func(*guard.News) {}); len(all) != recentEvents || all[0].Login != "user12" {
		t.Errorf("%d events, the first of %s", len(all), all[0].Login)
	}
}
