package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An end is one side of a connection: a socket, with TLS on it or not. Reads
// belong to one goroutine; writes to whoever holds the connection's pen for
// this side.
type end struct {
	tcp *quickConn
	tls *tls.Conn // nil in clear

	in input

	greeting bool // a server that has not greeted yet, under a deadline
	parked   bool // its pump has left for the time being; guarded by conn.mu

	// writing is when the write under way began, in the clock of [moment]; 0
	// if none is. The sweeper ends connections whose peer takes nothing.
	writing atomic.Int64
}

// newEnd makes an end in clear.
func newEnd(tcp *quickConn) *end { return &end{tcp: tcp} }

// Read reads what the peer sent.
func (e *end) Read(p []byte) (int, error) {
	if e.tls != nil {
		return e.tls.Read(p)
	}
	return e.tcp.Read(p)
}

// Write writes all of p.
func (e *end) Write(p []byte) (int, error) {
	e.writing.Store(moment())
	defer e.writing.Store(0)
	if e.tls != nil {
		return e.tls.Write(p)
	}
	return e.tcp.Write(p)
}

// WriteMore writes all of p, which is of no use to the peer before more has
// come. TLS makes records of it, which go at once.
func (e *end) WriteMore(p []byte) (int, error) {
	if e.tls != nil {
		return e.Write(p)
	}
	e.writing.Store(moment())
	defer e.writing.Store(0)
	return e.tcp.WriteMore(p)
}

// CloseWrite tells the peer that nothing more will come.
func (e *end) CloseWrite() error {
	if e.tls != nil {
		if err := e.tls.CloseWrite(); err != nil {
			return err
		}
	}
	return e.tcp.CloseWrite()
}

// Close closes the socket. It does not wait for a blocked writer, so TLS's
// close_notify is left to CloseWrite.
func (e *end) Close() error { return e.tcp.Close() }

// unread tells how many bytes the kernel holds that nobody has read.
func (e *end) unread() int {
	rc, err := e.tcp.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	_ = rc.Control(func(fd uintptr) {
		n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	})
	return n
}

// gone tells whether the peer has closed its side, though there may be bytes
// of it that nobody has read.
func (e *end) gone() bool {
	rc, err := e.tcp.SyscallConn()
	if err != nil {
		return true
	}
	state := uint8(unix.BPF_TCP_CLOSE)
	_ = rc.Control(func(fd uintptr) { state = quickState(int(fd)) })
	return state != unix.BPF_TCP_ESTABLISHED
}

// isWeather tells whether an error is an ordinary way for a connection to end:
// nothing to report beyond the fact.
func isWeather(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.EHOSTUNREACH)
}

// isTimeout tells whether a deadline of ours passed.
func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// epoch is what moments are counted from. time.Since uses the monotonic clock.
var epoch = time.Now()

// moment is the time now in nanoseconds since the program started: a clock
// that fits an atomic and never jumps. It is never 0.
func moment() int64 { return int64(time.Since(epoch)) + 1 }
