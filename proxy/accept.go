package proxy

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Accepting takes all that wait at once, by system calls that Go's scheduler
// does not hear of (see quick.go), into an address that is used again: a banned
// client costs four system calls, and no allocation. What it gives up: nothing
// else is done for a listener meanwhile, so whatever is decided here must not
// wait, and a close of the listener is noticed every acceptsAtOnce.

// acceptsAtOnce is how many connections are taken between two looks at whether
// the listener has been closed.
const acceptsAtOnce = 64

// An acceptor takes the connections of one listener.
type acceptor struct {
	server   *Server
	listener *listener

	from unix.RawSockaddrAny
	size uint32 // of what the kernel has written there
	err  error
}

// accept runs until the socket is closed. Errors are waited out: running out
// of descriptors must not end the service.
func (l *listener) accept(s *Server) {
	defer close(l.done)
	rc, err := l.file.SyscallConn()
	if err != nil {
		return
	}
	a := &acceptor{server: s, listener: l}
	wait := leastAcceptWait
	for {
		if rc.Read(a.takeAll) != nil {
			return
		}
		if a.err == nil {
			wait = leastAcceptWait
			continue
		}
		s.acceptFailed(l.service.Load(), a.err)
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, time.Second)
	}
}

// leastAcceptWait is how long an error is waited out at first.
const leastAcceptWait = 5 * time.Millisecond

// takeAll takes what waits. It returns false to be called again when more has
// come.
func (a *acceptor) takeAll(lfd uintptr) bool {
	a.err = nil
	for range acceptsAtOnce {
		a.size = unix.SizeofSockaddrAny
		fd, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, lfd, uintptr(unsafe.Pointer(&a.from)),
			uintptr(unsafe.Pointer(&a.size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			if a.listener.filtered.Load() {
				detachFilter(int(fd))
			}
			a.server.arrive(a.listener.service.Load(), int(fd), addrPortOf(&a.from))
		case unix.EAGAIN:
			return false
		case unix.ECONNABORTED, unix.EINTR:
		default:
			a.err = errno
			return true
		}
	}
	return true
}

// drop closes a socket at once, with a reset: nothing of it stays behind in
// TIME_WAIT.
func drop(fd int) {
	quickLinger(fd)
	quickClose(fd)
}
