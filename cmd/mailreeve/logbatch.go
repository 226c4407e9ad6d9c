package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"mailreeve/proxy"
)

// The lines of connections that have ended, one each, are written many at a
// time. A write of its own for each wakes the Go runtime's monitor thread each
// time, which cost a seventh of what a short connection does. What it gives up:
// a line comes out up to linesWait later, and is lost if the process is killed
// meanwhile. Whatever else is logged comes out at once, after the lines before
// it.

const (
	// linesWait is how long a line waits for others.
	linesWait = 100 * time.Millisecond
	// linesMost is how many bytes wait at most.
	linesMost = 32 << 10
)

// A lineBatch is the writer below a log's handler.
type lineBatch struct {
	out io.Writer

	mu    sync.Mutex
	lines []byte
}

// Write takes one line.
func (b *lineBatch) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.lines) == 0 {
		time.AfterFunc(linesWait, b.flush)
	}
	b.lines = append(b.lines, p...)
	if len(b.lines) >= linesMost {
		b.flushLocked()
	}
	return len(p), nil
}

// flush writes what waits. As long as that takes, nothing else is logged.
func (b *lineBatch) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flushLocked()
}

func (b *lineBatch) flushLocked() {
	if len(b.lines) > 0 {
		_, _ = b.out.Write(b.lines) // there is nowhere to report a log that fails
		b.lines = b.lines[:0]
	}
}

// A batchHandler has everything but the lines of connections written at once.
type batchHandler struct {
	slog.Handler
	batch *lineBatch
}

func (h batchHandler) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Message != proxy.ConnectionEnded {
		h.batch.flush()
	}
	return err
}

func (h batchHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return batchHandler{h.Handler.WithAttrs(attrs), h.batch}
}

func (h batchHandler) WithGroup(name string) slog.Handler {
	return batchHandler{h.Handler.WithGroup(name), h.batch}
}
