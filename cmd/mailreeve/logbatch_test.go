package main

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailreeve/proxy"
)

// A sharedBuffer takes what a timer's goroutine writes while a test reads.
type sharedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *sharedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *sharedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Lines of connections come out together and in order, no later than
// promised; anything else comes out at once, behind those before it.
func TestLogBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out sharedBuffer
		log, _ := newLogger(&out, LogConfig{Level: "info", Format: "text"}, new(slog.LevelVar))
		lines := func() int { synctest.Wait(); return strings.Count(out.String(), "\n") }

		log.Info(proxy.ConnectionEnded, "conn", "a")
		log.With("upstream", "mx").Info(proxy.ConnectionEnded, "conn", "b")
		if n := lines(); n != 0 {
			t.Errorf("got %d lines at once, want none", n)
		}
		time.Sleep(linesWait)
		if n := lines(); n != 2 {
			t.Errorf("got %d lines after %v, want 2", n, linesWait)
		}

		log.Info(proxy.ConnectionEnded, "conn", "c")
		log.With("upstream", "mx").Warn("something else")
		if n := lines(); n != 4 {
			t.Errorf("got %d lines once there is something else, want 4", n)
		}
		if a, b := strings.Index(out.String(), "conn=c"), strings.Index(out.String(), "something else"); a > b {
			t.Error("the order has changed")
		}

		for range 1 + linesMost/len("time=0000-00-00T00:00:00.000Z level=INFO msg=connection conn=d") {
			log.Info(proxy.ConnectionEnded, "conn", "d")
		}
		if n := lines(); n <= 4 {
			t.Error("nothing came out of a full batch")
		}
		time.Sleep(linesWait) // the timers end
	})
}
