package proxy

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"mailreeve/guard"
)

func TestClientsBehindNAT64AreToldApart(t *testing.T) {
	for came, want := range map[string]string{
		"64:ff9b::c000:201": "192.0.2.1",
		"64:ff9b::c000:202": "192.0.2.2",
		"64:ff9b::7f00:1":   "64:ff9b::7f00:1",
		"64:ff9b::a00:1":    "64:ff9b::a00:1",
		"64:ff9b:1::1":      "64:ff9b:1::1",
		"2001:db8::1":       "2001:db8::1",
		"192.0.2.3":         "192.0.2.3",
	} {
		svc := &service{}
		if got := svc.origin(mustAddr(came), 1).Addr; got != mustAddr(want) {
			t.Errorf("%s is judged as %s, want %s", came, got, want)
		}
	}
}

// The bounds, too, are for the clients behind a NAT64, not for all of IPv4; and
// who is allowed is so behind it.
func TestBoundsBehindNAT64(t *testing.T) {
	b := newBed(t, imapPlain, imap, func(c *Config, g *guard.Config) {
		c.Limits.ConnectionRate, c.Limits.NetworkRate = limit(t, "1/1h"), limit(t, "1/1h")
		g.AllowedIP = []string{"192.0.2.1"}
	})
	for _, step := range []struct {
		from string
		want int // connections that are open then
	}{
		{"64:ff9b::c633:6401", 1},
		{"64:ff9b::c633:6401", 1}, // too soon
		{"64:ff9b::cb00:7101", 2}, // another network
		{"64:ff9b::c000:201", 3},  // allowed
		{"64:ff9b::c000:201", 4},
	} {
		b.arrives(step.from)
		if n := b.server.conns.count(); n != step.want {
			t.Errorf("after one from %s %d are open, want %d", step.from, n, step.want)
		}
	}
}

// arrives has a connection come in as if from an address.
func (b *bed) arrives(from string) {
	b.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { client.Close() })
	c, err := l.Accept()
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	rc, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		b.t.Fatal(err)
	}
	var fd int
	var dupErr error
	if err := rc.Control(func(its uintptr) { fd, dupErr = unix.FcntlInt(its, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || dupErr != nil {
		b.t.Fatal(err, dupErr)
	}
	svc := b.server.listeners["127.0.0.1:0"].service.Load()
	b.server.arrive(svc, fd, netip.AddrPortFrom(mustAddr(from), 4711))
}
