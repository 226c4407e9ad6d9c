package proxy

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A SocketStore keeps listening sockets while no mailreeve runs, between the end
// of one and the start of the next: clients that come meanwhile wait, where they
// would be refused. systemd has one for each service. What it gives up: the
// sockets' kernel filters stay with them, so that for this while who is banned
// stays out, and an unban has to wait.
type SocketStore struct {
	// Left are the sockets that an earlier run has left, by name. They are the
	// server's from now on.
	Left map[string]*os.File
	// Keep puts a socket in under a name; to do so again changes nothing.
	Keep func(name string, socket *os.File) error
	// Drop takes the sockets of that name out, and returns when the store has
	// closed them.
	Drop func(name string) error
}

// KeepSockets has listening sockets kept in a store from now on, and those that
// it has used again. It is called before Listen.
func (s *Server) KeepSockets(store SocketStore) { s.store = store }

// storeName names the socket of an address in the store, where a colon separates
// names. It is empty for what is not kept: a port or an address that the next
// run would choose anew.
func storeName(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "0" {
		return ""
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil {
		return ""
	}
	return "listener " + strings.ReplaceAll(address, ":", "_")
}

// dropUnwanted closes what an earlier run has left and no service needs, since a
// socket that one does need may be refused as long as they are there.
func (s *Server) dropUnwanted(services []*service) {
	wanted := map[string]bool{}
	for _, svc := range services {
		wanted[storeName(svc.Address)] = true
	}
	for name, f := range s.store.Left {
		if !wanted[name] {
			delete(s.store.Left, name)
			f.Close()
			s.unkeep(name)
		}
	}
}

// inherit gives the socket that an earlier run has left for an address, or nil.
// What it has in its backlog may have that run's kernel filter.
func (s *Server) inherit(address string) *listener {
	name := storeName(address)
	f := s.store.Left[name]
	if f == nil {
		return nil
	}
	delete(s.store.Left, name)
	l, err := listenerOf(f, address)
	if err != nil {
		s.log.Warn("a listening socket of the last run cannot be used", "address", address, "error", err)
		f.Close()
		s.unkeep(name)
		return nil
	}
	l.filtered.Store(true)
	return l
}

// listenerOf makes a listener of a socket that listens already.
func listenerOf(f *os.File, address string) (*listener, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	l := &listener{file: f, address: address, done: make(chan struct{})}
	var callErr error
	err = rc.Control(func(fd uintptr) {
		var listens int
		if listens, callErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); callErr != nil {
			return
		}
		if listens == 0 {
			callErr = errors.New("it does not listen")
			return
		}
		var bound netip.AddrPort
		bound, callErr = quickName(unix.SYS_GETSOCKNAME, int(fd))
		l.bound = net.TCPAddrFromAddrPort(bound)
	})
	if err == nil {
		err = callErr
	}
	return l, err
}

// keep puts a listener's socket into the store.
func (s *Server) keep(l *listener) {
	name := storeName(l.address)
	if s.store.Keep == nil || name == "" {
		return
	}
	if err := s.store.Keep(name, l.file); err != nil {
		s.log.Warn("a restart will refuse connections for a moment", "address", l.address, "error", err)
	}
}

// unkeep takes the sockets of a name out of the store.
func (s *Server) unkeep(name string) {
	if s.store.Drop == nil || name == "" {
		return
	}
	if err := s.store.Drop(name); err != nil {
		s.log.Warn("a socket stays open that nobody serves", "name", name, "error", err)
	}
}
