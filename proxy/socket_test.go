package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A connection to an address or to a name carries bytes both ways, and knows
// both its ends.
func TestDialTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost"} {
		q, err := dialTCP(t.Context(), net.JoinHostPort(host, port))
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if q.LocalAddr().String() != far.RemoteAddr().String() || q.RemoteAddr().String() != far.LocalAddr().String() {
			t.Errorf("%s: from %v to %v, want from %v to %v", host, q.LocalAddr(), q.RemoteAddr(), far.RemoteAddr(), far.LocalAddr())
		}
		_, _ = q.Write([]byte("there"))
		_ = q.CloseWrite()
		if got, err := io.ReadAll(far); string(got) != "there" {
			t.Errorf("%s: got %q, %v", host, got, err)
		}
		_, _ = far.Write([]byte("back"))
		far.Close()
		if got, err := io.ReadAll(q); string(got) != "back" {
			t.Errorf("%s: got %q, %v", host, got, err)
		}
		q.Close()
		if _, err := q.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: a read after close: %v", host, err)
		}
	}
}

func TestDialTCPRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	if _, err := dialTCP(t.Context(), address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want a refusal", err)
	}
}

// A server whose queue is full answers nothing: the dial ends with its time, or
// when nobody waits for it any more.
func TestDialTCPEndsInTime(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	full, err := quickName(unix.SYS_GETSOCKNAME, fd)
	if err != nil {
		t.Fatal(err)
	}
	first, err := dialAddr(t.Context(), full) // fills the queue
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	brief, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := dialAddr(brief, full); !isTimeout(err) {
		t.Errorf("got %v, want the end of its time", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dialAddr(cancelled, full); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was called off", err)
	}
}

// What is accepted has the options of the listening socket.
func TestAcceptedSocketsInheritOptions(t *testing.T) {
	l, err := openListener(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.file.Close()
	d := &door{t: t, l: l}
	far, err := net.Dial("tcp", l.bound.String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	q := d.accept()
	defer q.Close()
	for _, o := range []struct {
		name          string
		level, option int
		want          int
	}{
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 120},
	} {
		_ = q.control("", func(fd int) error {
			if got, err := unix.GetsockoptInt(fd, o.level, o.option); err != nil || got != o.want {
				t.Errorf("%s is %d (%v), want %d", o.name, got, err, o.want)
			}
			return nil
		})
	}
	if from := netip.MustParseAddrPort(far.LocalAddr().String()); q.peer() != from {
		t.Errorf("from %v, want %v", q.peer(), from)
	}
}
