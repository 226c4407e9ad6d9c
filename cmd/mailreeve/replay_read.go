package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"mailreeve/guard"
)

// maxEventLine bounds a line of an event log, in bytes. Ours have about 300.
const maxEventLine = 64 << 10

// An eventFile is read one event after the other. What is no event is counted:
// a crash leaves half a line at the end, or where the log was taken up again.
type eventFile struct {
	name  string
	file  *os.File
	lines *bufio.Reader
	ended bool

	next       guard.News // valid until ended
	unreadable int
	lost       int64
}

// openEventFile opens an event log, which may be compressed with gzip, and
// reads up to its first event.
func openEventFile(name string) (*eventFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	e := &eventFile{name: name, file: f, lines: bufio.NewReaderSize(f, maxEventLine)}
	if magic, _ := e.lines.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) { // RFC 1952 2.3.1
		unzipped, err := gzip.NewReader(e.lines)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
		}
		e.lines = bufio.NewReaderSize(unzipped, maxEventLine)
	}
	err = e.advance()
	if err == nil && e.ended && e.unreadable > 0 {
		err = fmt.Errorf("%s: no line of it is an event; is it an event log ([events] log)?", name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return e, nil
}

// advance reads the next event.
func (e *eventFile) advance() error {
	for {
		line, err := e.lines.ReadSlice('\n')
		if len(line) > 0 && (err == nil || err == io.EOF || err == io.ErrUnexpectedEOF) && e.take(line) {
			return nil
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			e.unreadable++
			if err := e.skipLine(); err != nil {
				return err
			}
		case err == io.EOF || err == io.ErrUnexpectedEOF: // the latter: gzip that was cut short
			e.ended = true
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
}

// take reads a line and tells whether it is an event.
func (e *eventFile) take(line []byte) bool {
	var l struct {
		guard.News
		Lost int64 `json:"lost"`
	}
	if len(bytes.TrimSpace(line)) == 0 {
		return false
	}
	if err := json.Unmarshal(line, &l); err != nil {
		e.unreadable++
		return false
	}
	if e.lost += l.Lost; l.Lost > 0 {
		return false
	}
	if l.Kind == "" || l.Time.IsZero() {
		e.unreadable++
		return false
	}
	e.next = l.News
	return true
}

func (e *eventFile) skipLine() error {
	for {
		_, err := e.lines.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			if err == io.EOF {
				return nil // the next read says so again
			}
			return err
		}
	}
}

// eachEvent calls f with the events of all files in the order of their time:
// the files of one log, or of the nodes of a fleet, in any order.
func eachEvent(names []string, f func(*guard.News) error) (unreadable int, lost int64, err error) {
	var files []*eventFile
	defer func() {
		for _, e := range files {
			unreadable += e.unreadable
			lost += e.lost
			err = errors.Join(err, e.file.Close())
		}
	}()
	for _, name := range names {
		e, err := openEventFile(name)
		if err != nil {
			return 0, 0, err
		}
		files = append(files, e)
	}
	for {
		var first *eventFile
		for _, e := range files {
			if !e.ended && (first == nil || e.next.Time.Before(first.next.Time)) {
				first = e
			}
		}
		if first == nil {
			return 0, 0, nil
		}
		if err := f(&first.next); err != nil {
			return 0, 0, err
		}
		if err := first.advance(); err != nil {
			return 0, 0, err
		}
	}
}
