package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mailreeve/guard"
)

// needKernelFilter skips a test where the kernel lets us load no program.
func needKernelFilter(t testing.TB) {
	t.Helper()
	m, err := newTrie("reeve_probe")
	if err != nil {
		t.Skipf("no kernel filter here (it needs CAP_BPF): %v", err)
	}
	m.Close()
}

// A door is a listening socket with the kernel filter on it, and the lists of
// a guard.
type door struct {
	t       *testing.T
	filter  *kernelFilter
	l       *listener
	svc     *service
	inForce []guard.Change
	// prepare, if there is one, readies a client's socket.
	prepare func(fd int) error
}

func newDoor(t *testing.T, address string, inForce ...guard.Change) *door {
	needKernelFilter(t)
	d := &door{t: t, inForce: inForce}
	d.filter = newKernelFilter(func(kind guard.ChangeKind, f func(guard.Change)) {
		for _, ch := range d.inForce {
			if ch.Kind == kind {
				f(ch)
			}
		}
	}, slog.New(slog.DiscardHandler))
	d.svc = &service{Listener: Listener{Name: "imaps", Scope: "auth", Address: address}}
	l, err := openListener(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	d.l = l
	t.Cleanup(func() {
		l.file.Close()
		d.filter.close()
	})
	d.enter(KernelFilterRequired)
	return d
}

// ban is a ban that never ends.
func ban(prefix, scope string) guard.Change {
	return guard.Change{Kind: guard.BanAdded, Prefix: netip.MustParsePrefix(prefix), Scope: scope}
}

// enter prepares the filter and puts it on, as a start or a reload does.
func (d *door) enter(mode KernelFilter) {
	d.t.Helper()
	plan, err := d.filter.prepare(mode, []*service{d.svc})
	if err != nil {
		d.t.Fatal(err)
	}
	d.filter.enter(plan, []*service{d.svc}, map[string]*listener{d.svc.Address: d.l})
	d.filter.filling.Wait()
}

func (d *door) change(kind guard.ChangeKind, prefix, scope string) {
	d.filter.changed(guard.Change{Kind: kind, Prefix: netip.MustParsePrefix(prefix), Scope: scope})
}

func (d *door) count() uint64 {
	_, dropped := d.filter.status()
	return dropped[d.svc.Name]
}

func (d *door) dial(ctx context.Context, from string) (net.Conn, error) {
	to := d.l.bound.(*net.TCPAddr).AddrPort()
	src := netip.MustParseAddr(from)
	loopback := netip.MustParseAddr("127.0.0.1")
	if src.Is6() {
		loopback = netip.IPv6Loopback()
	}
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0))}
	if d.prepare != nil {
		dialer.Control = func(_, _ string, rc syscall.RawConn) error {
			var prepared error
			err := rc.Control(func(fd uintptr) { prepared = d.prepare(int(fd)) })
			return errors.Join(err, prepared)
		}
	}
	return dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(loopback, to.Port()).String())
}

// enters tells that a connection from there comes in. It returns both ends.
func (d *door) enters(from string) (client net.Conn, server *quickConn) {
	d.t.Helper()
	before := d.count()
	client, err := d.dial(d.t.Context(), from)
	if err != nil {
		d.t.Fatalf("%s is kept out: %v", from, err)
	}
	server = d.accept()
	d.t.Cleanup(func() {
		client.Close()
		server.Close()
	})
	if got := d.count(); got != before {
		d.t.Errorf("%s came in, but %d SYNs were dropped", from, got-before)
	}
	return client, server
}

func (d *door) accept() *quickConn {
	d.t.Helper()
	rc, err := d.l.file.SyscallConn()
	if err != nil {
		d.t.Fatal(err)
	}
	var fd int
	var acceptErr error
	err = rc.Read(func(lfd uintptr) bool {
		fd, _, acceptErr = unix.Accept4(int(lfd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		return acceptErr != unix.EAGAIN
	})
	if err := errors.Join(err, acceptErr); err != nil {
		d.t.Fatal(err)
	}
	c, err := newQuickConn(fd)
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// keptOut tells that the SYN of a connection from there is dropped.
func (d *door) keptOut(from string) {
	d.t.Helper()
	before := d.count()
	ctx, cancel := context.WithCancel(d.t.Context())
	result := make(chan error, 1)
	go func() {
		c, err := d.dial(ctx, from)
		if err == nil {
			c.Close()
		}
		result <- err
	}()
	waitFor(d.t, "the kernel to drop a SYN of "+from, func() bool { return d.count() > before })
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) && !isTimeout(err) {
		d.t.Errorf("%s: got %v, want no answer", from, err)
	}
}
