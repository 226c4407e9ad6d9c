package main

import (
	"bytes"
	"fmt"
	"net"
	"sync"
)

// lines reads a connection line by line. Its buffer bounds a line. What is
// written goes out when nothing is left to read, as servers do that know
// pipelining.
type lines struct {
	c    net.Conn
	buf  []byte
	r, w int // what was read and not yet given out is buf[r:w]
	out  []byte
}

func newLines(c net.Conn) *lines { return &lines{c: c, buf: make([]byte, 4096)} }

func (l *lines) write(s string) error {
	l.out = append(l.out, s...)
	return nil
}

func (l *lines) flush() error {
	if len(l.out) == 0 {
		return nil
	}
	_, err := l.c.Write(l.out)
	l.out = l.out[:0]
	return err
}

// next returns the next line without its end; it is valid until the next call.
func (l *lines) next() ([]byte, error) {
	for {
		if i := bytes.IndexByte(l.buf[l.r:l.w], '\n'); i >= 0 {
			line := l.buf[l.r : l.r+i]
			l.r += i + 1
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if l.r > 0 {
			l.w = copy(l.buf, l.buf[l.r:l.w])
			l.r = 0
		}
		if l.w == len(l.buf) {
			return nil, fmt.Errorf("a line of more than %d bytes", len(l.buf))
		}
		if err := l.flush(); err != nil {
			return nil, err
		}
		n, err := l.c.Read(l.buf[l.w:])
		if err != nil {
			return nil, err
		}
		l.w += n
	}
}

// skip throws away n octets and tells each piece to seen, if that is not nil.
func (l *lines) skip(n int, seen func(int)) error {
	buffered := min(n, l.w-l.r)
	l.r += buffered
	big := buffers.Get().(*[]byte)
	defer buffers.Put(big)
	for n -= buffered; n > 0; {
		got, err := l.c.Read((*big)[:min(n, len(*big))])
		if err != nil {
			return err
		}
		n -= got
		if seen != nil {
			seen(got)
		}
	}
	return nil
}

// data reads a message up to CRLF.CRLF. A client that waits for the reply has
// sent nothing behind it, so only the last five bytes are looked at.
func (l *lines) data() error {
	end := []byte("\r\n.\r\n")
	last := make([]byte, 0, 2*len(end))
	keep := func(b []byte) bool {
		last = append(last, b[max(0, len(b)-len(end)):]...)
		last = last[:copy(last, last[max(0, len(last)-len(end)):])]
		return bytes.Equal(last, end)
	}
	buffered := l.buf[l.r:l.w]
	l.r = l.w
	if keep(buffered) {
		return nil
	}
	if err := l.flush(); err != nil {
		return err
	}
	big := buffers.Get().(*[]byte)
	defer buffers.Put(big)
	for {
		n, err := l.c.Read(*big)
		if err != nil {
			return err
		}
		if keep((*big)[:n]) {
			return nil
		}
	}
}

// buffers are what bulk is read with while it comes.
var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}
