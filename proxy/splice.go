package proxy

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Where both sides are plain TCP and the conversation has gone blind, bulk
// moves from socket to socket within the kernel, through a pipe (splice(2)).
// What it gains: the bytes are not copied to us and back, which is most of what
// a download costs. What it gives up: two more descriptors while bytes flow,
// which is why a pipe is held only until the source has run dry, and few are
// kept. Single lines are cheaper read and written, so copyBlind begins with a
// read, and only one that filled its buffer leads here.

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

// splice moves what has come from one side to the other, until there is no more
// for the time being. Waiting, deadlines and the end of the stream are left to
// the read that follows. An error says which side it is about.
func (c *conn) splice(from, to *end) (readErr, writeErr error) {
	in, err := from.tcp.SyscallConn()
	if err != nil {
		return err, nil
	}
	out, err := to.tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	p, err := c.service.server.pipes.take()
	if err != nil {
		return nil, nil // out of descriptors: the bytes are copied
	}
	const flags = unix.SPLICE_F_NONBLOCK | unix.SPLICE_F_MOVE
	var held int // bytes in the pipe
	fill := func(fd uintptr) bool {
		held, readErr = spliceRetry(int(fd), p.w, spliceAtOnce, flags)
		return true
	}
	drain := func(fd uintptr) bool {
		for held > 0 {
			n, err := spliceRetry(p.r, int(fd), held, flags)
			held -= n
			if err != nil {
				writeErr = err
				return err != unix.EAGAIN // else wait until it takes more
			}
		}
		writeErr = nil
		return true
	}
	for {
		// A deadline that has passed, or a close, is found by the read that
		// follows as well.
		if in.Read(fill) != nil || errors.Is(readErr, unix.EAGAIN) {
			readErr = nil
			break
		}
		if readErr != nil || held == 0 {
			break
		}
		c.noteRead(from, held)
		to.writing.Store(moment())
		err := out.Write(drain)
		to.writing.Store(0)
		if err != nil {
			writeErr = netError(err)
		}
		if writeErr != nil {
			p.close() // there are bytes in it
			return nil, writeErr
		}
	}
	c.service.server.pipes.give(p)
	return readErr, nil
}

// spliceRetry is splice(2), again where a signal came first.
func spliceRetry(from, to, most, flags int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, most, flags)
		if err != unix.EINTR {
			return int(max(n, 0)), err
		}
	}
}
