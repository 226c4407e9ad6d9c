package proxy

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A quickConn is a TCP socket that we read and write by system calls that Go's
// scheduler does not hear of. A call on a socket that does not block is over in
// microseconds; announced, as package net does, each may have its processor
// taken away meanwhile, which wakes a thread to run what is left, which finds
// nothing and sleeps. On two cores under load that was a fifth to a third of
// the CPU that a message costs.
//
// What it gives up: until the call is over, garbage collection cannot stop the
// world, so a write is made in pieces that take no longer than tens of
// microseconds; and the race detector does not see the buffers.
//
// The socket is a file to Go, whose poller waits for it and keeps its deadlines.
// A net.TCPConn would want a descriptor of its own, both addresses and five
// options asked for and set at each accept.
type quickConn struct {
	file *os.File
	raw  syscall.RawConn

	// ending tells that the end follows at once: what is written goes with it
	// in one segment, and wakes the peer once.
	ending atomic.Bool
	closed atomic.Bool // by a closer
}

// quickWrite is how much is written in one call.
const quickWrite = 64 << 10

// A transfer is a read or write under way. It is lent for the call, with the
// functions that do it, so that a call allocates nothing and an idle connection
// holds none.
type transfer struct {
	reading, writing func(fd uintptr) (done bool)

	p     []byte
	flags uintptr // send(2)'s
	n     int
	errno syscall.Errno
}

var transfers = sync.Pool{New: func() any {
	t := new(transfer)
	t.reading, t.writing = t.read, t.write
	return t
}}

// newQuickConn takes over a socket that does not block.
func newQuickConn(fd int) (*quickConn, error) {
	f := os.NewFile(uintptr(fd), "")
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &quickConn{file: f, raw: raw}, nil
}

// quickConnOf takes over a connection that package net has made.
func quickConnOf(c net.Conn) (*quickConn, error) {
	defer c.Close()
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var dupErr error
	if err := rc.Control(func(its uintptr) {
		fd, dupErr = unix.FcntlInt(its, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, os.NewSyscallError("fcntl", dupErr)
	}
	return newQuickConn(fd)
}

// Read reads once into p. It looks before it waits, though it mostly finds
// nothing where the read before came short: Go's poller hears of bytes and of the
// end that came with them as of one event, and forgets at each read what it heard
// before. Who only waited would never see that end.
func (q *quickConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	t := transfers.Get().(*transfer)
	t.p = p
	n, err := t.end("read", q.raw.Read(t.reading))
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return n, err
}

// Write writes all of p.
func (q *quickConn) Write(p []byte) (int, error) {
	if q.ending.Load() {
		return q.WriteMore(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	return q.send(p, unix.MSG_NOSIGNAL)
}

// WriteMore is Write where nothing can come of p before more is written. The
// kernel may keep back what fills no segment until then, or for 200 ms
// (tcp(7)): each segment costs us the better part of a write, on loopback that
// of the server's receiving as well, and a buffer's size is never a multiple of
// a segment's. A long message costs about a twentieth less. What it gives
// up: the server may have the middle of a message so much later.
func (q *quickConn) WriteMore(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return q.send(p, unix.MSG_NOSIGNAL|unix.MSG_MORE)
}

// send writes all of p. Of several at a time Go's poller lets one go first.
func (q *quickConn) send(p []byte, flags uintptr) (int, error) {
	t := transfers.Get().(*transfer)
	t.p, t.flags = p, flags
	return t.end("write", q.raw.Write(t.writing))
}

// end gives a transfer back, and what came of it: waitErr is how the wait for
// the socket ended.
func (t *transfer) end(name string, waitErr error) (int, error) {
	n, errno := t.n, t.errno
	t.p, t.n, t.errno = nil, 0, 0
	transfers.Put(t)
	if waitErr == nil && errno != 0 {
		return n, os.NewSyscallError(name, errno)
	}
	return n, netError(waitErr)
}

// netError is the error of a wait as package net would give it: a file that was
// closed meanwhile has a name of its own for it.
func netError(err error) error {
	if err == nil || isTimeout(err) {
		return err
	}
	return net.ErrClosed
}

func (t *transfer) read(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&t.p[0])), uintptr(len(t.p)))
		switch errno {
		case 0:
			t.n = int(n)
			return true
		case unix.EAGAIN:
			return false
		case unix.EINTR:
		default:
			t.errno = errno
			return true
		}
	}
}

func (t *transfer) write(fd uintptr) bool {
	for t.n < len(t.p) {
		rest := t.p[t.n:min(len(t.p), t.n+quickWrite)]
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&rest[0])), uintptr(len(rest)), t.flags, 0, 0)
		switch errno {
		case 0:
			t.n += int(n)
		case unix.EAGAIN:
			return false
		case unix.EINTR:
		default:
			t.errno = errno
			return true
		}
	}
	return true
}
