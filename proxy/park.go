package proxy

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mailreeve/protocol"
)

// A connection that has fallen idle is parked: it has no goroutine and no
// buffer, and waits in an epoll of our own. What that gains is memory, two
// stacks and two buffers a connection, of which a server with many IDLE
// clients has thousands. What it gives up is some microseconds at the next
// byte; so only idleness parks, never the wait for one reply.

// restAfter is how long nothing must have moved before a connection parks. It is
// short because all who arrive within it have their goroutines at the same time,
// and Go never gives back the 450 bytes that it keeps of each: with thousands who
// come back after a restart that is more than half a kilobyte a connection. To
// park and to wake costs some 15 µs, at most once in that time.
const restAfter = time.Second

// mayRest tells whether the sweeper should ask the connection to rest.
func (c *conn) mayRest(now int64) bool {
	if !c.talking.Load() || c.resting.Load() || c.gate.closed() || c.asking.Load() || now-c.moved.Load() < int64(restAfter) {
		return false
	}
	return restful(protocol.Phase(c.phase.Load()))
}

// restful tells whether nothing is owed in a phase, so that a connection may
// rest.
func restful(p protocol.Phase) bool { return p == protocol.Idle || p == protocol.LoggedIn }

// rest asks both pumps to leave: their reads end with a timeout at once. It does
// not wait for mu: whoever has it may wait for a client that takes nothing, and
// all other connections' timers would wait with it.
func (c *conn) rest() {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	if c.over || !c.mayRest(moment()) { // it may have stirred since it was looked at
		return
	}
	if c.client.writing.Load() != 0 || c.server != nil && c.server.writing.Load() != 0 {
		// It only looks idle: a side does not take what it is sent, perhaps
		// before it is heard out.
		return
	}
	c.resting.Store(true)
	past := time.Unix(1, 0)
	_ = c.client.tcp.SetReadDeadline(past)
	if c.server != nil {
		_ = c.server.tcp.SetReadDeadline(past)
	}
}

// settleDown is called by a pump whose read has timed out. It returns true if
// the pump shall leave; another is started when something moves.
func (c *conn) settleDown(e *end) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.resting.Load() || c.over {
		return false
	}
	e.in.rest()
	c.service.server.tlsBuffers.release(e.tls)
	e.parked = true
	return true
}

// stir ends the rest: what has left comes back. It is called when something
// has moved on a side.
func (c *conn) stir() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stirLocked()
}

func (c *conn) stirLocked() {
	if !c.resting.Load() || c.over {
		return
	}
	c.resting.Store(false)
	_ = c.client.tcp.SetReadDeadline(time.Time{})
	if c.client.parked {
		c.client.parked = false
		c.workers++
		c.service.server.pumps.run(c.pumpClient)
	}
	server := c.server
	if server == nil {
		return
	}
	_ = server.tcp.SetReadDeadline(time.Time{})
	if server.parked {
		server.parked = false
		c.workers++
		c.service.server.pumps.run(func() { c.pumpServer(server) })
	}
}

// A lot is where parked connections wait.
type lot struct {
	epoll int
	wake  [2]int // a pipe that ends the loop

	mu   sync.Mutex
	cars map[int64]*conn
	next int64
}

func newLot() (*lot, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	l := &lot{epoll: epoll, cars: map[int64]*conn{}}
	if err := unix.Pipe2(l.wake[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		unix.Close(epoll)
		return nil, err
	}
	ev := eventFor(unix.EPOLLIN, wakePlace)
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, l.wake[0], &ev); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lot) close() {
	unix.Close(l.epoll)
	unix.Close(l.wake[0])
	unix.Close(l.wake[1])
}

// park has a connection without workers wait for the next byte, or hang-up, of
// either side. It is called with c.mu held.
func (l *lot) park(c *conn) error {
	l.mu.Lock()
	l.next++
	c.place = l.next
	l.cars[c.place] = c
	l.mu.Unlock()
	for _, e := range []*end{c.client, c.server} {
		if e == nil {
			continue
		}
		if err := l.control(e, unix.EPOLL_CTL_ADD, c.place); err != nil {
			l.take(c.place)
			c.place = 0 // it may park another time
			l.forget(c)
			return err
		}
	}
	return nil
}

// control puts an end's socket into the epoll or takes it out. Both events of
// a connection carry its place; a place is never used twice, so an event that
// comes late finds nobody.
func (l *lot) control(e *end, op int, place int64) error {
	rc, err := e.tcp.SyscallConn()
	if err != nil {
		return err
	}
	var ctlErr error
	err = rc.Control(func(fd uintptr) {
		ev := eventFor(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLONESHOT, place)
		ctlErr = unix.EpollCtl(l.epoll, op, int(fd), &ev)
	})
	if err != nil {
		return err
	}
	return ctlErr
}

// wakePlace is where nobody parks: its event ends the loop.
const wakePlace = -1

// eventFor gives an event that carries a place in the 64 bits that the kernel
// gives back with it: 32 would be used up in weeks.
func eventFor(events uint32, place int64) unix.EpollEvent {
	return unix.EpollEvent{Events: events, Fd: int32(place), Pad: int32(place >> 32)}
}

func placeOf(ev *unix.EpollEvent) int64 { return int64(ev.Pad)<<32 | int64(uint32(ev.Fd)) }

// forget takes a connection's sockets out of the epoll. A closed one is out
// already.
func (l *lot) forget(c *conn) {
	for _, e := range []*end{c.client, c.server} {
		if e != nil {
			_ = l.control(e, unix.EPOLL_CTL_DEL, 0)
		}
	}
}

// take gives the connection that waits at a place, and empties it.
func (l *lot) take(place int64) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.cars[place]
	delete(l.cars, place)
	return c
}

// watch wakes parked connections until ctx ends.
func (l *lot) watch(ctx context.Context, log *slog.Logger) {
	defer l.close()
	stop := context.AfterFunc(ctx, func() { _, _ = unix.Write(l.wake[1], []byte{0}) })
	defer stop()
	events := make([]unix.EpollEvent, 256)
	for ctx.Err() == nil {
		n, err := unix.EpollWait(l.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			log.Error("parked connections cannot be watched", "error", err)
			return
		}
		for _, ev := range events[:max(n, 0)] {
			if c := l.take(placeOf(&ev)); c != nil {
				c.unpark(l, placeOf(&ev))
			}
		}
	}
}

// unpark brings a connection's goroutines back, if it is still parked there.
func (c *conn) unpark(l *lot, place int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.place != place {
		return
	}
	c.place = 0
	l.forget(c)
	c.stirLocked()
}
