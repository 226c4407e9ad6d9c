package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
	"time"
)

// Under systemd, standard error mostly is the journal. It has the time of each
// line already, and learns the line's priority from a prefix (sd-daemon(3)), so
// that `journalctl -p warning` shows what it should.

// A priority is what the journal sorts lines by, as syslog does.
type priority int

const (
	errorPriority   priority = 3
	warningPriority priority = 4
	infoPriority    priority = 6
	debugPriority   priority = 7
)

// prefix is what a line of this priority begins with.
func (p priority) prefix() string { return fmt.Sprintf("<%d>", p) }

// priorities are in the order of slog's levels, which are four apart.
var priorities = [...]priority{debugPriority, infoPriority, warningPriority, errorPriority}

// rank gives the place of a level among the priorities.
func rank(l slog.Level) int {
	return min(max(int(l-slog.LevelDebug)/int(slog.LevelInfo-slog.LevelDebug), 0), len(priorities)-1)
}

// isJournal tells whether w is the stream to the journal that systemd has told
// us of. A standard error that was redirected since is not.
func isJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// A journalHandler writes each level's lines by a handler of its own, since a
// prefix comes before everything that a handler writes.
type journalHandler struct {
	levels [len(priorities)]slog.Handler
	// timed leaves the time in: whoever reads JSON may be shown nothing else of
	// the journal's.
	timed bool
}

// newJournalHandler has a handler made for each level, by what it is to write
// before a line.
func newJournalHandler(timed bool, of func(prefix string) slog.Handler) journalHandler {
	h := journalHandler{timed: timed}
	for i, p := range priorities {
		h.levels[i] = of(p.prefix())
	}
	return h
}

func (h journalHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.levels[0].Enabled(ctx, l)
}

func (h journalHandler) Handle(ctx context.Context, r slog.Record) error {
	if !h.timed {
		r.Time = time.Time{}
	}
	return h.levels[rank(r.Level)].Handle(ctx, r)
}

func (h journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	for i, of := range h.levels {
		h.levels[i] = of.WithAttrs(attrs)
	}
	return h
}

func (h journalHandler) WithGroup(name string) slog.Handler {
	for i, of := range h.levels {
		h.levels[i] = of.WithGroup(name)
	}
	return h
}
