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

// newLogger logs to w as configured. The level can be changed later. Whoever
// ends the program calls flush before.
func newLogger(w io.Writer, c LogConfig, level *slog.LevelVar) (log *slog.Logger, flush func()) {
	if l, err := c.level(); err == nil {
		level.Set(l)
	}
	batch := &lineBatch{out: w}
	options := &slog.HandlerOptions{Level: level}
	handler := func(prefix string) slog.Handler {
		if c.Format == "json" {
			return slog.NewJSONHandler(lineWriter{batch, prefix}, options)
		}
		return slog.NewTextHandler(lineWriter{batch, prefix}, options)
	}
	var h slog.Handler
	if isJournal(w) {
		h = newJournalHandler(c.Format == "json", handler)
	} else {
		h = handler("")
	}
	return slog.New(batchHandler{h, batch}), batch.flush
}

// A lineBatch is what the writers below a log's handlers write to.
type lineBatch struct {
	out io.Writer

	mu    sync.Mutex
	lines []byte
}

// A lineWriter puts a prefix before each line of a batch.
type lineWriter struct {
	batch  *lineBatch
	prefix string
}

// Write takes one line.
func (w lineWriter) Write(p []byte) (int, error) {
	b := w.batch
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.lines) == 0 {
		time.AfterFunc(linesWait, b.flush)
	}
	b.lines = append(append(b.lines, w.prefix...), p...)
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
