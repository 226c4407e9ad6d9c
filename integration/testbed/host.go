package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A Host is a machine of its own as far as the network goes: a namespace, and
// a thread of ours in it that does what is asked. What the thread starts lives
// there. The namespace has no name, so nothing of it is left behind when the
// test is over, or killed. A nil Host is this machine.
type Host struct {
	thread int
	work   chan func()
}

// NewHost makes a machine without a network. The test is skipped where it may
// not.
func NewHost(t testing.TB) *Host {
	t.Helper()
	h := &Host{work: make(chan func())}
	begun := make(chan error)
	go h.run(begun)
	if err := <-begun; errors.Is(err, unix.EPERM) {
		t.Skip("only root can make a network namespace")
	} else if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { close(h.work) })
	h.command(t, "ip link set lo up")
	return h
}

// run is the thread's life as a host. It goes back to what it was in the end and
// does not end itself: what it may have started before, for others, is told to
// end with it (see startProcess).
func (h *Host) run(begun chan<- error) {
	runtime.LockOSThread()
	h.thread = unix.Gettid()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(home)
		err = unix.Unshare(unix.CLONE_NEWNET)
	}
	begun <- err
	if err != nil {
		runtime.UnlockOSThread()
		return
	}
	for f := range h.work {
		f()
	}
	if unix.Setns(home, unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
}

// do calls f in the host and waits for it.
func (h *Host) do(f func()) {
	if h == nil {
		f()
		return
	}
	done := make(chan struct{})
	h.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

// command runs a command line without quotes in the host.
func (h *Host) command(t testing.TB, line string) {
	t.Helper()
	words := strings.Fields(line)
	var out []byte
	var err error
	h.do(func() { out, err = exec.Command(words[0], words[1:]...).CombinedOutput() })
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// Join lays a cable between two hosts and gives each end its addresses, with
// the length of the network's prefix. It is done once for two hosts.
func (h *Host) Join(t testing.TB, other *Host, ours, others []string) {
	t.Helper()
	h.command(t, fmt.Sprintf("ip link add cable type veth peer name cable netns %d", other.thread))
	for _, end := range []struct {
		host      *Host
		addresses []string
	}{{h, ours}, {other, others}} {
		for _, a := range end.addresses {
			if strings.Contains(a, ":") {
				a += " nodad" // else it cannot be used for a second
			}
			end.host.command(t, "ip address add "+a+" dev cable")
		}
		end.host.command(t, "ip link set cable up")
	}
}

// Dial connects from one of the host's addresses to another host's. The host
// does nothing else meanwhile.
func (h *Host) Dial(ctx context.Context, from, to string) (*Conn, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	var conn net.Conn
	var err error
	h.do(func() { conn, err = d.DialContext(ctx, "tcp", to) })
	if err != nil {
		return nil, err
	}
	return NewConn(conn), nil
}

// Listen opens a port in the host.
func (h *Host) Listen(address string) (l net.Listener, err error) {
	h.do(func() { l, err = net.Listen("tcp", address) })
	return l, err
}

// web is an HTTP client in the host.
func (h *Host) web() *http.Client {
	if h == nil {
		return http.DefaultClient
	}
	var d net.Dialer
	dial := func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		h.do(func() { conn, err = d.DialContext(ctx, network, address) })
		return conn, err
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial}}
}
