package proxy

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What a quickConn needs to be a net.Conn, which crypto/tls asks for, and how
// one is made to a server. Options are set on the listening socket once, and
// inherited; a server's address that needs no resolver needs no goroutine that
// waits for the connection either.

// SyscallConn gives access to the descriptor.
func (q *quickConn) SyscallConn() (syscall.RawConn, error) { return q.raw, nil }

// Close closes the socket. A read or write under way ends.
func (q *quickConn) Close() error { return q.file.Close() }

// CloseWrite tells the peer that nothing more will come.
func (q *quickConn) CloseWrite() error {
	return q.control("shutdown", func(fd int) error { return quickShutdown(fd, unix.SHUT_WR) })
}

// reset closes the socket so that the peer is told at once, and nothing stays
// behind in TIME_WAIT.
func (q *quickConn) reset() {
	_ = q.control("setsockopt", func(fd int) error { quickLinger(fd); return nil })
	_ = q.Close()
}

// LocalAddr is our address, an empty one if the socket has none any more.
func (q *quickConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(q.local()) }

// RemoteAddr is the peer's.
func (q *quickConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(q.peer()) }

func (q *quickConn) local() netip.AddrPort { return q.address(unix.SYS_GETSOCKNAME) }
func (q *quickConn) peer() netip.AddrPort  { return q.address(unix.SYS_GETPEERNAME) }

func (q *quickConn) address(which uintptr) (a netip.AddrPort) {
	_ = q.control("", func(fd int) (err error) {
		a, err = quickName(which, fd)
		return err
	})
	return a
}

// SetDeadline bounds reads and writes, those under way as well.
func (q *quickConn) SetDeadline(t time.Time) error { return q.file.SetDeadline(t) }

// SetReadDeadline bounds reads.
func (q *quickConn) SetReadDeadline(t time.Time) error { return q.file.SetReadDeadline(t) }

// SetWriteDeadline bounds writes.
func (q *quickConn) SetWriteDeadline(t time.Time) error { return q.file.SetWriteDeadline(t) }

func (q *quickConn) control(name string, do func(fd int) error) error {
	var callErr error
	if err := q.raw.Control(func(fd uintptr) { callErr = do(int(fd)) }); err != nil {
		return net.ErrClosed
	}
	return os.NewSyscallError(name, callErr)
}

// keepAlive finds peers that are gone without a word, before NAT forgets them;
// keepAliveAgain is after how long it asks again, keepAliveTimes how often.
const (
	keepAlive      = 2 * time.Minute
	keepAliveAgain = 15 * time.Second
	keepAliveTimes = 9
)

// setOptions sets what every connection of ours has: no waiting for more to
// send, and keep-alive. A listening socket hands it on to what it accepts.
func setOptions(fd int) error {
	for _, o := range []struct{ level, option, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAliveAgain / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveTimes},
	} {
		if err := quickSetOption(fd, o.level, o.option, o.value); err != nil {
			return err
		}
	}
	return nil
}

// dialTCP connects to host:port.
func dialTCP(ctx context.Context, address string) (*quickConn, error) {
	if to, err := netip.ParseAddrPort(address); err == nil && to.Addr().Zone() == "" {
		q, err := dialAddr(ctx, to)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
		}
		return q, nil
	}
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true,
		Idle: keepAlive, Interval: keepAliveAgain, Count: keepAliveTimes}}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return quickConnOf(c)
}

// dialAddr connects to an address that needs no resolver.
func dialAddr(ctx context.Context, to netip.AddrPort) (*quickConn, error) {
	family := unix.AF_INET6
	if to.Addr().Unmap().Is4() {
		family = unix.AF_INET
	}
	fd, err := quickSocket(family)
	if err != nil {
		return nil, err
	}
	if to.Addr().IsLoopback() { // the kernel tells of the end of a local peer
		err = quickSetOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	} else {
		err = setOptions(fd)
	}
	if err == nil {
		err = quickConnect(fd, to)
	}
	if err != nil && err != unix.EINPROGRESS && err != unix.EINTR {
		quickClose(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	q, err := newQuickConn(fd)
	if err != nil {
		return nil, err
	}
	if err := q.awaitConnected(ctx); err != nil {
		q.Close()
		return nil, err
	}
	return q, nil
}

// awaitConnected waits until the connection that was begun stands. One to a
// server on this machine does so already.
func (q *quickConn) awaitConnected(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if q.peer().IsValid() {
		return nil
	}
	if until, ok := ctx.Deadline(); ok {
		_ = q.SetWriteDeadline(until)
	}
	stop := context.AfterFunc(ctx, func() { _ = q.SetWriteDeadline(time.Unix(1, 0)) })
	var failed error
	err := q.raw.Write(func(fd uintptr) bool {
		if _, err := quickName(unix.SYS_GETPEERNAME, int(fd)); err == nil {
			return true
		}
		failed = os.NewSyscallError("connect", quickFault(int(fd)))
		return failed != nil
	})
	if !stop() && ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		err = failed
	} else {
		err = netError(err)
	}
	_ = q.SetWriteDeadline(time.Time{})
	return err
}
