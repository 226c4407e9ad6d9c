package proxy

import (
	"cmp"
	"syscall"

	"golang.org/x/sys/unix"
)

// Where both sides are plain TCP and the conversation has gone blind, bulk
// moves from socket to socket within the kernel, through a pipe (splice(2)).
// What it gains: the bytes are not copied to us and back, which is most of what
// a download costs. What it gives up: two more descriptors while bytes flow,
// which is why a pipe is held only until the source has run dry, and few are
// kept; and garbage collection cannot stop the world during a call, which for a
// full pipe takes a fifth of a millisecond. Single lines are cheaper read and
// written, so copyBlind begins with a read, and only one that filled its buffer
// leads here. From there on that direction is spliced until it falls idle.

// spliceAtOnce is how much a pipe is asked to hold, in bytes. It is what a user
// may ask for by default (fs.pipe-max-size); 64 KiB cost twice the CPU.
const spliceAtOnce = 1 << 20

// A pipe carries bytes between two sockets.
type pipe struct{ r, w int }

func newPipe() (*pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	// A smaller one (the user's other pipes may use up what is allowed) does.
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, spliceAtOnce)
	return &pipe{fds[0], fds[1]}, nil
}

func (p *pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

// pipes keeps empty pipes for the next who need one.
type pipes chan *pipe

// maxPipes is how many are kept; there may be more in use.
const maxPipes = 32

func (ps pipes) take() (*pipe, error) {
	select {
	case p := <-ps:
		return p, nil
	default:
		return newPipe()
	}
}

func (ps pipes) give(p *pipe) {
	select {
	case ps <- p:
	default:
		p.close()
	}
}

// close lets go of those that are kept.
func (ps pipes) close() {
	for {
		select {
		case p := <-ps:
			p.close()
		default:
			return
		}
	}
}

// splices tells whether bytes can go from one side to the other unseen.
func splices(from, to *end) bool { return from.tls == nil && to.tls == nil }

// A haul is one direction's bytes on their way through a pipe.
type haul struct {
	pipes pipes
	p     *pipe // nil while nothing is held
	held  int   // bytes in the pipe
	err   error // of the last call
}

// splice moves whatever comes from one side to the other, until a read must
// see to something: a deadline, the end of the stream, or that there is no
// pipe to be had. An error says which side it is about.
func (c *conn) splice(from, to *end) (readErr, writeErr error) {
	in, err := from.tcp.SyscallConn()
	if err != nil {
		return err, nil
	}
	out, err := to.tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	h := haul{pipes: c.service.server.pipes}
	fill, drain := h.fill, h.drain
	for {
		// A deadline that has passed, or a close, is met by that read again.
		if in.Read(fill) != nil || h.err != nil || h.held == 0 {
			break
		}
		c.noteRead(from, h.held)
		to.writing.Store(moment())
		err := out.Write(drain)
		to.writing.Store(0)
		if err = cmp.Or(netError(err), h.err); err != nil {
			h.p.close() // there are bytes in it
			return nil, err
		}
	}
	h.rest()
	return h.err, nil
}

// fill takes what the source has into the pipe. It returns false to be called
// again once there is something; meanwhile it holds no pipe.
func (h *haul) fill(fd uintptr) bool {
	h.err = nil
	if h.p == nil {
		if h.p, h.err = h.pipes.take(); h.err != nil {
			h.err = nil // out of descriptors: a buffer's worth is copied
			return true
		}
	}
	h.held, h.err = spliceOnce(int(fd), h.p.w, spliceAtOnce)
	if h.err == unix.EAGAIN {
		h.err = nil
		h.rest()
		return false
	}
	return true
}

// drain gives the target what the pipe holds. It returns false to be called
// again when the target takes more.
func (h *haul) drain(fd uintptr) bool {
	for h.held > 0 {
		n, err := spliceOnce(h.p.r, int(fd), h.held)
		h.held -= n
		if err == unix.EAGAIN {
			return false
		}
		if h.err = err; err != nil {
			return true
		}
	}
	return true
}

// rest gives the empty pipe back.
func (h *haul) rest() {
	if h.p != nil {
		h.pipes.give(h.p)
		h.p = nil
	}
}

// spliceOnce is splice(2), again where a signal came first. Go's scheduler does
// not hear of it (see quick.go): announced, a call of this length has its
// processor taken away nearly always.
func spliceOnce(from, to, most int) (int, error) {
	const flags = unix.SPLICE_F_NONBLOCK | unix.SPLICE_F_MOVE
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(most), flags)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
