package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gaissmai/bart"
	"golang.org/x/sys/unix"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// A service is one listener's part of a configuration. A reload gives a
// listener a new one; connections keep the one they came in by.
type service struct {
	Listener

	server   *Server
	proto    *protocol.Protocol
	upstream *upstream
	tls      *tls.Config // nil for TLSNone
	trusted  *bart.Lite  // PROXY peers
	timeouts Timeouts
	limits   Limits
	replies  *protocol.ReplyTable
	hostname string

	counts     counts
	handshakes slots
}

// trusts tells whether a peer must send a PROXY header.
func (s *service) trusts(peer netip.Addr) bool { return s.trusted.Contains(peer) }

// origin is what the guard is told of a client of this service.
func (s *service) origin(a netip.Addr, id uint64) guard.Origin {
	return guard.Origin{Addr: judged(a), Listener: s.Name, Scope: s.Scope,
		Protocol: s.Protocol, Upstream: s.Listener.Upstream, Conn: id}
}

// name is the host that we go by.
func (s *service) name() string {
	if h := s.upstream.offer.Load().Host; h != "" {
		return h
	}
	return s.hostname
}

// plaintextAuth tells whether a client may send credentials without TLS.
func (s *service) plaintextAuth(client netip.Addr) bool {
	switch s.PlaintextAuth {
	case PlaintextYes:
		return true
	case PlaintextPrivate:
		return client.IsPrivate() || client.IsLoopback() || client.IsLinkLocalUnicast()
	}
	return false
}

// A listener is a socket that accepts. It speaks to the kernel itself: a
// banned client is closed before a goroutine or a place in Go's poller has
// been spent on it.
type listener struct {
	file    *os.File // the socket, in Go's poller
	bound   net.Addr
	address string // as configured
	service atomic.Pointer[service]
	done    chan struct{} // closed when the accept loop has ended

	// filtered tells that accepted sockets may have inherited a kernel filter.
	filtered atomic.Bool
}

// openListener opens the socket. MPTCP, Go's default, is off: socket filters
// do not go on it.
func openListener(ctx context.Context, address string) (*listener, error) {
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, listenHint(address, err)
	}
	defer l.Close()
	// A net.Listener only accepts in its own way; its file lets us wait and
	// accept in ours.
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	opened := &listener{file: f, bound: l.Addr(), address: address, done: make(chan struct{})}
	if err := opened.setOptions(); err != nil {
		f.Close()
		return nil, err
	}
	return opened, nil
}

// setOptions sets what accepted sockets inherit.
func (l *listener) setOptions() error {
	rc, err := l.file.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	if err := rc.Control(func(fd uintptr) { optErr = setOptions(int(fd)) }); err != nil {
		return err
	}
	return optErr
}

// listenHint adds what to do about it.
func listenHint(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EACCES):
		return &hinted{err, "ports below 1024 need CAP_NET_BIND_SERVICE: start it as root, by its systemd unit, or with setcap"}
	case errors.Is(err, syscall.EADDRINUSE):
		return &hinted{err, "another program listens there (see: ss -ltnp); move the mail server to the port that the upstream names"}
	}
	return err
}

// A hinted error says what to do.
type hinted struct {
	error
	hint string
}

func (h *hinted) Error() string { return h.error.Error() + "; " + h.hint }
func (h *hinted) Unwrap() error { return h.error }

// arrive decides about a connection that the kernel has just handed over. It
// runs in the accept loop and never waits.
func (s *Server) arrive(svc *service, fd int, peer netip.AddrPort) {
	origin := svc.origin(peer.Addr(), 0)
	trusted := svc.trusts(peer.Addr())
	verdict := protocol.Pass
	if !trusted {
		verdict = s.guard.Admit(&origin)
	}
	if verdict == protocol.Banned {
		svc.counts.banned.Inc()
		drop(fd)
		return
	}
	exempt := trusted || s.guard.Exempt(origin.Addr)
	if !exempt {
		if reason := s.arrivals.refuses(origin.Addr, &svc.limits, moment()); reason != "" {
			s.metrics.refused.WithLabelValues(svc.Name, reason).Inc()
			s.arrivals.report(origin, reason)
			drop(fd)
			return
		}
	}
	tcp, err := newQuickConn(fd)
	if err != nil {
		s.acceptFailed(svc, err)
		return
	}
	c := s.newConn(svc, tcp, peer)
	reason := s.conns.add(c, svc.limits.bounds(exempt))
	if reason == "" && !trusted {
		// Asked again once it is entered, where a new ban finds it.
		if verdict = s.guard.Admit(&origin); verdict == protocol.Banned {
			s.conns.remove(c)
			reason = "banned"
		}
	}
	if reason != "" {
		s.metrics.refused.WithLabelValues(svc.Name, reason).Inc()
		s.arrivals.report(origin, reason)
		tcp.reset()
		return
	}
	svc.counts.open.Inc()
	s.running.Add(1)
	crew := s.pumps
	if svc.TLS == protocol.TLSImplicit {
		crew = s.handshakers
	}
	crew.run(func() { c.serve(trusted, verdict) })
}

func (s *Server) newConn(svc *service, tcp *quickConn, peer netip.AddrPort) *conn {
	c := &conn{service: svc, peer: peer, began: moment(), client: newEnd(tcp), workers: 1}
	c.origin = svc.origin(peer.Addr(), s.nextConn.Add(1))
	c.turn.L = &c.mu
	return c
}

// countDescriptors says when fewer connections fit than are allowed: each needs
// two descriptors, the client's and the server's.
func (s *Server) countDescriptors() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	const others = 100 + closesAtOnce // listeners, store, logs, probes; see closer
	if need := 2*s.current.cfg.Limits.Connections + others; limit.Cur < uint64(need) {
		s.log.Warn("too few descriptors for the connections that are allowed",
			"descriptors", limit.Cur, "needed", need, "hint", "raise LimitNOFILE in the unit, or lower limits.connections")
	}
}

// acceptFailed says once a minute that connections cannot be taken.
func (s *Server) acceptFailed(svc *service, err error) {
	now := moment()
	last := s.acceptWarned.Load()
	if now-last < int64(time.Minute) && last != 0 || !s.acceptWarned.CompareAndSwap(last, now) {
		return
	}
	hint := ""
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		hint = "raise LimitNOFILE; every connection needs two descriptors"
	}
	s.log.Error("connections cannot be accepted", "listener", svc.Name, "error", err, "hint", hint)
}
