package proxy

import (
	"bufio"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A cupboard is a store of sockets, as systemd is one: it has descriptors of its
// own.
type cupboard struct {
	t       *testing.T
	sockets map[string]*os.File
}

func (c *cupboard) store() SocketStore {
	left := map[string]*os.File{}
	for name, f := range c.sockets {
		left[name] = c.copy(f)
	}
	return SocketStore{
		Left: left,
		Keep: func(name string, f *os.File) error {
			if old := c.sockets[name]; old != nil {
				old.Close() // it is the same socket
			}
			c.sockets[name] = c.copy(f)
			return nil
		},
		Drop: func(name string) error {
			if f := c.sockets[name]; f != nil {
				delete(c.sockets, name)
				return f.Close()
			}
			return os.ErrNotExist
		},
	}
}

func (c *cupboard) copy(f *os.File) *os.File {
	c.t.Helper()
	rc, err := f.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	var fd int
	var dupErr error
	if err := rc.Control(func(old uintptr) { fd, dupErr = unix.Dup(int(old)) }); err != nil || dupErr != nil {
		c.t.Fatal(err, dupErr)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// runWith starts a server on addresses that has its sockets in the cupboard.
func (c *cupboard) runWith(addresses ...string) (b *bed, stop func()) {
	c.t.Helper()
	b = newBed(c.t, smtpPlain, mx, nil)
	ctx, cancel := contextNow()
	defer cancel()
	if err := b.server.Shutdown(ctx); err != nil {
		c.t.Fatal(err)
	}
	cfg := b.server.current.cfg
	listener := cfg.Listeners[0]
	cfg.Listeners = nil
	for _, a := range addresses {
		listener.Name, listener.Address = "at "+a, a
		cfg.Listeners = append(cfg.Listeners, listener)
	}
	s, err := New(cfg, b.guard, slog.New(slog.NewTextHandler(b.log, nil)))
	if err != nil {
		c.t.Fatal(err)
	}
	s.KeepSockets(c.store())
	stop = func() {
		ctx, cancel := contextNow()
		defer cancel()
		_ = s.Shutdown(ctx)
	}
	if err := s.Listen(); err != nil {
		stop()
		c.t.Fatal(err)
	}
	b.server = s
	return b, stop
}

func freeAddress(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Skipf("no address of %s: %v", host, err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Who connects while nobody is there is served by the next run, over IPv4 and
// IPv6; what that one does not serve is closed, also by a reload.
func TestSocketsOutliveARun(t *testing.T) {
	stays, goes, six := freeAddress(t, "127.0.0.1"), freeAddress(t, "127.0.0.1"), freeAddress(t, "::1")
	c := &cupboard{t: t, sockets: map[string]*os.File{}}
	_, stop := c.runWith(stays, goes, six)
	stop()
	if len(c.sockets) != 3 {
		t.Fatalf("%d sockets are kept, want 3", len(c.sockets))
	}
	var waiting []net.Conn
	for _, a := range []string{stays, six} {
		conn, err := net.Dial("tcp", a)
		if err != nil {
			t.Fatalf("between the runs: %v", err)
		}
		defer conn.Close()
		waiting = append(waiting, conn)
	}
	b, stop := c.runWith(stays, six)
	for _, conn := range waiting {
		_ = conn.SetDeadline(time.Now().Add(patience))
		if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.HasPrefix(line, "220 ") {
			t.Errorf("greeted with %q, %v", line, err)
		}
	}
	if conn, err := net.Dial("tcp", goes); err == nil {
		conn.Close()
		t.Error("what is no longer served is open")
	}
	if got := b.server.Addresses()["at "+stays].String(); got != stays {
		t.Errorf("it says that it listens on %s, want %s", got, stays)
	}
	cfg := b.server.current.cfg
	cfg.Listeners = cfg.Listeners[:1]
	if err := b.server.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", six); err == nil {
		conn.Close()
		t.Error("what a reload has taken away is open")
	}
	stop()
	if len(c.sockets) != 1 {
		t.Errorf("%d sockets are kept, want 1", len(c.sockets))
	}
	for _, f := range c.sockets {
		f.Close()
	}
}

// What is in the store and cannot be served is replaced.
func TestSocketThatDoesNotListen(t *testing.T) {
	address := freeAddress(t, "127.0.0.1")
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &cupboard{t: t, sockets: map[string]*os.File{storeName(address): os.NewFile(uintptr(fd), "")}}
	b, stop := c.runWith(address)
	defer stop()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	b.waitFor("a word about it", func() bool { return strings.Contains(b.log.String(), "it does not listen") })
	for _, f := range c.sockets {
		f.Close()
	}
}

// Names go through systemd, which separates them by colons; what the next run
// would choose anew is not kept.
func TestStoreName(t *testing.T) {
	for address, want := range map[string]string{
		":25":                "listener _25",
		"192.0.2.1:587":      "listener 192.0.2.1_587",
		"[2001:db8::1]:993":  "listener [2001_db8__1]_993",
		"127.0.0.1:0":        "",
		"mx.example.test:25": "",
		"nonsense":           "",
	} {
		if got := storeName(address); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}
