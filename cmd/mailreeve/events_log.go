package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"mailreeve/guard"
)

const (
	// eventQueue is how many events may wait to be written. A disk that stands
	// still for longer costs events, which are counted, and never a client's
	// time.
	eventQueue = 8192
	// eventBuffer is about how much is written at once, in bytes.
	eventBuffer = 64 << 10
	// eventRetry is how long after a failed write the file is opened anew.
	eventRetry = time.Second
)

// An eventLog is the file of events: one JSON value a line, the newest last,
// mode 0600 because it tells who uses which address. When it is large enough it
// is put aside. Nothing in it is secret: a guess is 16 bits of a keyed hash, and
// of a password that was right there is nothing.
type eventLog struct {
	cfg EventsConfig
	log *slog.Logger
	hub *eventHub

	queue chan guard.News
	lost  atomic.Uint64 // since the last line that told of some
	quit  chan struct{}
	done  chan struct{}
	once  sync.Once

	// What follows is the writer's.
	file   *os.File
	size   int64
	torn   bool // the file may end in half a line
	failed time.Time
	buf    bytes.Buffer
	events uint64 // in buf
	told   uint64 // lost events that a line in buf tells of
}

// openEventLog opens the file and begins to write; with no file configured it
// gives nil.
func openEventLog(cfg EventsConfig, hub *eventHub, log *slog.Logger) (*eventLog, error) {
	if cfg.Log == "" {
		return nil, nil
	}
	l := &eventLog{
		cfg: cfg, log: log, hub: hub,
		queue: make(chan guard.News, eventQueue), quit: make(chan struct{}), done: make(chan struct{}),
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("events.log: %w", err)
	}
	go l.run()
	return l, nil
}

// note queues an event, or counts it as lost.
func (l *eventLog) note(n *guard.News) {
	select {
	case l.queue <- *n:
	default:
		l.lost.Add(1)
		l.hub.dropped.Add(1)
	}
}

// close writes what is queued and closes the file. Events must not be noted
// any more, or they are lost.
func (l *eventLog) close() error {
	l.once.Do(func() { close(l.quit) })
	<-l.done
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

func (l *eventLog) run() {
	defer close(l.done)
	for {
		select {
		case n := <-l.queue:
			l.add(n)
		case <-l.quit:
			for len(l.queue) > 0 {
				l.add(<-l.queue)
			}
			l.flush()
			return
		}
		if len(l.queue) == 0 || l.buf.Len() >= eventBuffer {
			l.flush()
		}
	}
}

// add puts an event into the buffer.
func (l *eventLog) add(n guard.News) {
	out := json.NewEncoder(&l.buf)
	if lost := l.lost.Swap(0); lost > 0 {
		_ = out.Encode(lostEvents{n.Time, int64(lost)}) // these always encode
		l.told += lost
	}
	_ = out.Encode(n)
	l.events++
}

// flush writes the buffer. If it cannot be written its events are lost, which
// is said once, and the file is opened anew after a while.
func (l *eventLog) flush() {
	if l.buf.Len() == 0 {
		return
	}
	err := l.write()
	events, told := l.events, l.told
	l.buf.Reset()
	l.events, l.told = 0, 0
	was := l.hub.failing.Swap(err != nil)
	switch {
	case err == nil:
		l.hub.written.Add(events)
		if was {
			l.log.Info("the event log takes writes again", "file", l.cfg.Log)
		}
		return
	case !was:
		l.log.Error("the event log does not take writes; events are lost to it, and to nothing else", "file", l.cfg.Log, "error", err)
	}
	l.lost.Add(events + told)
	l.hub.dropped.Add(events)
}

func (l *eventLog) write() error {
	if l.file == nil {
		if time.Since(l.failed) < eventRetry {
			return errors.New("the file is not open")
		}
		if err := l.open(); err != nil {
			l.failed = time.Now()
			return err
		}
	}
	if l.size > 0 && l.size+int64(l.buf.Len()) > int64(l.cfg.MaxMegabytes)<<20 {
		if err := l.rotate(); err != nil {
			return l.fail(err)
		}
	}
	if l.torn {
		if _, err := l.file.WriteString("\n"); err != nil {
			return l.fail(err)
		}
		l.torn = false
	}
	n, err := l.file.Write(l.buf.Bytes())
	l.size += int64(n)
	if err != nil {
		return l.fail(err)
	}
	return nil
}

func (l *eventLog) fail(err error) error {
	l.file.Close() // whatever it says, the file is given up
	l.file, l.failed = nil, time.Now()
	return err
}

// open opens the file at its end. Half a line that a crash has left there is
// ended first.
func (l *eventLog) open() error {
	f, err := os.OpenFile(l.cfg.Log, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.size, err = f.Seek(0, io.SeekEnd)
	last := []byte{'\n'}
	if err == nil && l.size > 0 {
		_, err = f.ReadAt(last, l.size-1)
	}
	if err != nil {
		f.Close()
		return err
	}
	l.file, l.torn = f, last[0] != '\n'
	return nil
}

// rotate puts the file aside and begins a new one. The oldest is overwritten.
func (l *eventLog) rotate() error {
	for n := l.cfg.Keep; n > 1; n-- {
		if err := os.Rename(l.cfg.rotated(n-1), l.cfg.rotated(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(l.cfg.Log, l.cfg.rotated(1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := l.file.Close(); err != nil {
		l.file = nil
		return err
	}
	return l.open()
}
