package proxy

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mailreeve/protocol"
)

// Who talks before our greeting does not read what a server says: only
// programs that deliver and run do so. A greeting that is held back (Postfix's
// postscreen waits 6 s) lets them show it; who has waited once is not made to
// wait again that day. It is an offence once the client asks for something that
// needs the server: monitors often say EHLO and QUIT without waiting for us.

// earlyTalk tells whether the client talks before our greeting, holding it
// back if the listener says so.
func (c *conn) earlyTalk() bool {
	svc, s := c.service, c.service.server
	if !svc.proto.EarlyTalk || svc.TLS == protocol.TLSImplicit || c.unscored {
		return false
	}
	delay := time.Duration(svc.GreetDelay)
	key := sourceKey(c.origin.Addr)
	if delay == 0 || s.guard.Exempt(c.origin.Addr) || s.greeted.knows(key, moment()) {
		return c.client.hears(0) == heardWords
	}
	heard := c.client.hears(delay)
	if heard == heardNothing {
		s.greeted.add(key, moment())
	}
	return heard == heardWords
}

// heard is what a client does before it is greeted.
type heard uint8

const (
	heardNothing heard = iota // it waits
	heardWords                // it talks
	heardTLS                  // it begins a TLS handshake: a mail program that tries ports
	heardEnd                  // it has gone
)

// hears waits for the client's first bytes, and leaves them unread.
func (e *end) hears(limit time.Duration) heard {
	rc, err := e.tcp.SyscallConn()
	if err != nil {
		return heardEnd
	}
	var first [2]byte
	is := heardNothing
	look := func(fd uintptr) bool {
		n, err := quickReceive(int(fd), first[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			return false
		case n <= 0:
			is = heardEnd
		case first[0] == 0x16 && (n == 1 || first[1] == 3):
			is = heardTLS
		default:
			is = heardWords
		}
		return true
	}
	if limit == 0 {
		_ = rc.Control(func(fd uintptr) { look(fd) })
		return is
	}
	_ = e.tcp.SetReadDeadline(time.Now().Add(limit))
	if err := rc.Read(look); err != nil && !isTimeout(err) {
		is = heardEnd
	}
	_ = e.tcp.SetReadDeadline(time.Time{})
	return is
}

// greeted remembers who has waited for our greeting. It is in memory only: a
// restart makes everybody wait once more.
type greeted struct {
	mu    sync.Mutex
	until map[netip.Addr]int64 // in the clock of moment
}

// maxGreeted bounds it (about 50 bytes each); greetedFor is how long somebody is
// remembered, postscreen's figure.
const (
	maxGreeted = 100_000
	greetedFor = 24 * time.Hour
)

func (g *greeted) knows(a netip.Addr, now int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.until[a] > now
}

// add remembers somebody. When there is no room somebody else is forgotten, and
// will wait again.
func (g *greeted) add(a netip.Addr, now int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.until == nil {
		g.until = map[netip.Addr]int64{}
	}
	if len(g.until) >= maxGreeted {
		for other := range g.until {
			delete(g.until, other)
			break
		}
	}
	g.until[a] = now + int64(greetedFor)
}
