package proxy

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A closer gives the descriptors of ended connections back, many at a time.
// The peer is told at once, by a shutdown that is a system call like our others
// (see quickcall.go); a close is Go's to make, and wakes the runtime's monitor
// thread each time. What it gives up: a descriptor stays taken until the
// sweeper comes round, or until there are closesAtOnce of them.
type closer struct {
	mu    sync.Mutex
	files []*os.File
}

// closesAtOnce is how many descriptors wait at most.
const closesAtOnce = 64

// close ends a connection. It is for connections that nobody reads or writes
// any more, or whose readers and writers are to end: they see the end of the
// stream.
func (cl *closer) close(q *quickConn) {
	if !q.closed.CompareAndSwap(false, true) {
		return
	}
	_ = q.control("shutdown", func(fd int) error { return quickShutdown(fd, unix.SHUT_RDWR) })
	cl.mu.Lock()
	cl.files = append(cl.files, q.file)
	many := len(cl.files) >= closesAtOnce
	cl.mu.Unlock()
	if many {
		cl.flush()
	}
}

// flush closes what waits.
func (cl *closer) flush() {
	cl.mu.Lock()
	files := cl.files
	cl.files = nil
	cl.mu.Unlock()
	for _, f := range files {
		f.Close()
	}
}
