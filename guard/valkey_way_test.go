package guard

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A storeWay is a way to a server on which questions or answers can be held up,
// while their lock is held, answers be late, and all connections be cut.
type storeWay struct {
	addr               string
	questions, answers sync.RWMutex
	late               atomic.Int64 // how late answers are, in nanoseconds

	mu    sync.Mutex
	conns []net.Conn
}

func startWay(t *testing.T, to string) *storeWay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &storeWay{addr: l.Addr().String()}
	t.Cleanup(func() {
		l.Close()
		w.cut()
	})
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, client, server)
			w.mu.Unlock()
			go carry(server, client, &w.questions, new(atomic.Int64))
			go carry(client, server, &w.answers, &w.late)
		}
	}()
	return w
}

// carry carries what one end says to the other, each piece so much later, while
// nobody holds the lock.
func carry(to io.WriteCloser, from io.Reader, held *sync.RWMutex, late *atomic.Int64) {
	defer to.Close()
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		<-time.After(time.Duration(late.Load()))
		held.RLock()
		_, err = to.Write(b[:n])
		held.RUnlock()
		if err != nil {
			return
		}
	}
}

// cut ends all connections.
func (w *storeWay) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}
