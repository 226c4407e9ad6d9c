package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
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

func TestKernelFilterDropsTheBanned(t *testing.T) {
	d := newDoor(t, "[::]:0", ban("127.0.0.9/32", "auth"))
	d.keptOut("127.0.0.9")
	d.enters("127.0.0.8")
	d.enters("::1")

	d.change(guard.BanAdded, "127.0.7.0/24", "all")
	d.keptOut("127.0.7.1")
	d.keptOut("127.0.7.255")
	d.enters("127.0.8.0")

	d.change(guard.BanAdded, "::1/128", "imaps")
	d.keptOut("::1")
	d.change(guard.BanRemoved, "::1/128", "imaps")
	d.enters("::1")

	d.change(guard.BanAdded, "127.0.0.10/32", "mx") // another scope
	d.enters("127.0.0.10")

	d.change(guard.BanRemoved, "127.0.7.0/24", "all")
	d.enters("127.0.7.1")
	if st, _ := d.filter.status(); st.State != filterOn || st.Entries != 1 {
		t.Errorf("got status %+v, want on with 1 entry", st)
	}
}

// What stands between the headers of IP and TCP hides nobody: IPv6's extension
// headers, IPv4's options.
func TestKernelFilterSeesThroughOptions(t *testing.T) {
	d := newDoor(t, "[::]:0", ban("127.0.0.9/32", "auth"))
	const padding = "\x00\x00\x01\x04\x00\x00\x00\x00" // eight octets; Linux takes no more
	for _, tt := range []struct {
		from          string
		level, option int
		value         string
	}{
		{"127.0.0.9", unix.IPPROTO_IP, unix.IP_OPTIONS, strings.Repeat("\x01", 40)},
		{"::1", unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, padding},
		{"::1", unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, padding},
	} {
		d.prepare = func(fd int) error { return unix.SetsockoptString(fd, tt.level, tt.option, tt.value) }
		if tt.from == "::1" {
			d.enters(tt.from)
			d.change(guard.BanAdded, "::1/128", "auth")
		}
		d.keptOut(tt.from)
		d.change(guard.BanRemoved, "::1/128", "auth")
	}
}

func TestKernelFilterOnIPv6Only(t *testing.T) {
	d := newDoor(t, "[::1]:0", ban("::/64", "auth"),
		ban("::1/128", "auth"))
	d.keptOut("::1")
	d.change(guard.BanRemoved, "::1/128", "auth")
	d.enters("::1") // by ::/64, which the filter cannot tell from all of IPv4
}

// A connection that is there stays, whatever becomes of its address.
func TestKernelFilterLeavesConnectionsAlone(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0")
	client, server := d.enters("127.0.0.9")
	d.change(guard.BanAdded, "127.0.0.9/32", "auth")
	d.keptOut("127.0.0.9")
	talk(t, client, server)
}

// talk sends bytes both ways.
func talk(t *testing.T, client, server net.Conn) {
	t.Helper()
	for _, way := range []struct{ from, to net.Conn }{{client, server}, {server, client}} {
		if _, err := way.from.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		_ = way.to.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(way.to, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKernelFilterBanEndsByItself(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0")
	ending := ban("127.0.0.9/32", "auth")
	ending.Until = time.Now().Add(time.Hour)
	d.filter.changed(ending)
	d.keptOut("127.0.0.9")
	ending.Until = time.Now()
	d.filter.changed(ending)
	d.enters("127.0.0.9")
}

func TestKernelFilterSparesSoftBans(t *testing.T) {
	soft := ban("127.0.0.10/32", "auth")
	soft.Soft = true
	d := newDoor(t, "127.0.0.1:0", ban("127.0.0.9/32", "auth"), soft)
	d.keptOut("127.0.0.9")
	d.enters("127.0.0.10")
	soft.Prefix = netip.MustParsePrefix("127.0.0.9/32") // its owner has logged in
	d.filter.changed(soft)
	d.enters("127.0.0.9")
}

func TestKernelFilterAllowBeatsBan(t *testing.T) {
	allowed := guard.Change{Kind: guard.AllowAdded, Prefix: netip.MustParsePrefix("127.0.0.16/30"), Scope: "all"}
	d := newDoor(t, "127.0.0.1:0", ban("127.0.0.0/24", "all"), allowed)
	d.keptOut("127.0.0.9")
	d.enters("127.0.0.17")
	d.change(guard.BanAdded, "127.0.0.17/32", "auth")
	d.enters("127.0.0.17")
	d.change(guard.AllowAdded, "127.0.0.9/32", "all")
	d.enters("127.0.0.9")
	d.change(guard.AllowRemoved, "127.0.0.16/30", "all")
	d.keptOut("127.0.0.17")
	d.enters("127.0.0.9")
}

// Where there is no room in the kernel a ban less is refused after the handshake.
// An allow entry must come in once there is room, unless it has gone meanwhile.
func TestKernelFilterWithoutRoom(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0", ban("127.0.0.9/32", "auth"))
	tiny := func(name setName) *filterSet {
		set := d.filter.sets[name]
		set.close()
		var err error
		if set.trie, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.LPMTrie, KeySize: 20, ValueSize: 8,
			MaxEntries: 1, Flags: unix.BPF_F_NO_PREALLOC}); err != nil {
			t.Fatal(err)
		}
		return set
	}
	allow, all := tiny(setName{allow: true}), tiny(setName{scope: "all"})
	d.enter(KernelFilterRequired) // with programs that look at these
	d.change(guard.BanAdded, "127.0.0.10/32", "all")
	d.change(guard.BanAdded, "127.0.0.11/32", "all")
	d.keptOut("127.0.0.10")
	d.enters("127.0.0.11")
	if !all.full || all.entries != 1 {
		t.Errorf("full: %v, with %d entries; want it full with one", all.full, all.entries)
	}

	d.change(guard.AllowAdded, "127.0.0.20/32", "all")
	d.change(guard.AllowAdded, "127.0.0.10/32", "all")
	d.change(guard.AllowAdded, "127.0.0.9/32", "all")
	d.keptOut("127.0.0.9")
	d.change(guard.AllowRemoved, "127.0.0.10/32", "all")
	d.change(guard.AllowRemoved, "127.0.0.20/32", "all")
	waitFor(t, "what was late to be entered", func() bool {
		d.filter.mu.Lock()
		defer d.filter.mu.Unlock()
		return len(allow.late) == 0
	})
	d.enters("127.0.0.9")
	d.keptOut("127.0.0.10")
}

// A trusted proxy is let in even if somebody had its address banned.
func TestKernelFilterSparesTrustedProxies(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0", ban("127.0.0.0/8", "all"))
	d.keptOut("127.0.0.9")
	d.svc.TrustedProxies = []string{"127.0.0.9"}
	d.enter(KernelFilterAuto)
	d.enters("127.0.0.9")
	d.keptOut("127.0.0.8")
}

// A reload takes the filter off, and puts it on again with other scopes.
func TestKernelFilterFollowsReload(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0", ban("127.0.0.9/32", "auth"))
	d.keptOut("127.0.0.9")
	d.enter(KernelFilterOff)
	d.enters("127.0.0.9")
	d.svc.Scope = "mx"
	d.enter(KernelFilterAuto)
	d.enters("127.0.0.9")
	d.svc.Scope = "auth"
	d.enter(KernelFilterAuto)
	d.keptOut("127.0.0.9")
	if len(d.filter.sets) != 4 {
		t.Errorf("got %d tries, want those of what is allowed, all, auth and imaps", len(d.filter.sets))
	}
}

// Changes that come while what is in force is being read are newer than it.
func TestKernelFilterChangesBeatTheList(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0")
	d.enter(KernelFilterOff)
	d.filter.inForce = func(kind guard.ChangeKind, f func(guard.Change)) {
		if kind != guard.BanAdded {
			return
		}
		f(ban("127.0.0.9/32", "auth"))
		f(ban("127.0.0.11/32", "auth"))
		d.change(guard.BanRemoved, "127.0.0.9/32", "auth")
		d.change(guard.BanAdded, "127.0.0.10/32", "auth")
	}
	d.enter(KernelFilterAuto)
	d.enters("127.0.0.9")
	d.keptOut("127.0.0.10")
	d.keptOut("127.0.0.11")
}

// A start waits for what is allowed, and not until a million bans are listed.
func TestKernelFilterIsReadyBeforeItsBans(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0")
	d.enter(KernelFilterOff)
	var asked []guard.ChangeKind
	d.filter.inForce = func(kind guard.ChangeKind, f func(guard.Change)) {
		asked = append(asked, kind)
		if kind == guard.BanAdded {
			f(ban("127.0.0.9/32", "auth"))
		}
	}
	services := []*service{d.svc}
	plan, err := d.filter.prepare(KernelFilterRequired, services)
	if err != nil {
		t.Fatal(err)
	}
	if len(asked) != 1 || asked[0] != guard.AllowAdded {
		t.Errorf("asked for %v to make it ready, want what is allowed", asked)
	}
	d.filter.enter(plan, services, map[string]*listener{d.svc.Address: d.l})
	d.filter.filling.Wait()
	d.keptOut("127.0.0.9")
}

// From guesses to the kernel and back: the guard bans, the next SYN is dropped,
// a command forgives. What was accepted has none of the filter.
func TestKernelFilterObeysTheGuard(t *testing.T) {
	needKernelFilter(t)
	b := newBed(t, imapPlain, imap, func(c *Config, g *guard.Config) {
		c.Enforce.KernelFilter = KernelFilterRequired
		g.Authentication = limit(t, "2/1h")
	})
	bad := b.dial("127.0.0.9")
	bad.expect("* OK")
	for _, c := range b.server.conns.list(nil) {
		if filter := socketFilter(t, c.client.tcp); filter != nil {
			t.Errorf("an accepted socket has a filter: %v", filter)
		}
	}
	for i := range 2 {
		bad.send(fmt.Sprintf("a LOGIN bob wrong%d", i))
		bad.line()
	}
	waitFor(t, "the ban", func() bool { return b.server.Status().KernelFilter.Entries == 1 })
	d := &door{t: t, filter: b.server.filter, l: b.server.listeners["127.0.0.1:0"], svc: &service{Listener: Listener{Name: "test"}}}
	d.keptOut("127.0.0.9")
	if n := b.server.Status().Listeners[0].DroppedSYNs; n == 0 {
		t.Error("the status tells of no dropped SYN")
	}
	if _, err := b.guard.Unban(guard.UnbanRequest{Target: "127.0.0.9"}); err != nil {
		t.Fatal(err)
	}
	b.dial("127.0.0.9").expect("* OK")
}

// socketFilter tells what filter a socket has, nil for none.
func socketFilter(t *testing.T, c *quickConn) error {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var filter error
	_ = rc.Control(func(fd uintptr) {
		// The option cannot show a program that is not classic BPF: EACCES.
		_, filter = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER)
	})
	return filter
}

// A socket has inherited its listener's filter until it is taken off.
func TestKernelFilterIsInherited(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0")
	_, server := d.enters("127.0.0.9")
	if got := socketFilter(t, server); !errors.Is(got, unix.EACCES) {
		t.Errorf("got %v, want EACCES", got)
	}
	rc, err := server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = rc.Control(func(fd uintptr) { detachFilter(int(fd)) })
	if got := socketFilter(t, server); got != nil {
		t.Errorf("after it was taken off: %v", got)
	}
}

const childVar = "MAILREEVE_TEST_FILTER_CHILD"

// The kernel lets go of everything when the process dies, however it does.
func TestKernelFilterDiesWithTheProcess(t *testing.T) {
	needKernelFilter(t)
	if os.Getenv(childVar) != "" {
		standAtTheDoor(t)
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^TestKernelFilterDiesWithTheProcess$", "-test.v")
	child.Env = append(os.Environ(), childVar+"=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = child.Process.Kill(), child.Wait() }()
	var address string
	var id uint64
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "door "); ok {
			where, number, _ := strings.Cut(rest, " ")
			address = where
			id, _ = strconv.ParseUint(number, 10, 32)
			break
		}
	}
	if id == 0 {
		t.Fatal("the child has no filter")
	}
	alive := func() bool {
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if err == nil {
			p.Close()
		}
		return err == nil
	}
	if !alive() {
		t.Skip("programs cannot be looked up here (it needs CAP_SYS_ADMIN)")
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	waitFor(t, "the program to go", func() bool { return !alive() })
	l, err := openListener(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.file.Close()
	d := &door{t: t, l: l, svc: &service{}, filter: newKernelFilter(nil, nil)}
	d.enters("127.0.0.9")
}

// standAtTheDoor is the child's part: it keeps 127.0.0.9 out, says so, and
// waits to be killed.
func standAtTheDoor(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0", ban("127.0.0.9/32", "auth"))
	p, err := d.filter.program(d.svc)
	if err != nil {
		t.Fatal(err)
	}
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	d.filter.attach(d.l, "imaps", p)
	d.keptOut("127.0.0.9")
	fmt.Printf("\ndoor %s %d\n", d.l.bound, id)
	select {
	case <-time.After(time.Minute):
	case <-t.Context().Done():
	}
}

func TestKernelFilterSetting(t *testing.T) {
	for _, tt := range []struct {
		in, want KernelFilter
		ok       bool
	}{
		{"", KernelFilterOff, true},
		{"auto", KernelFilterAuto, true},
		{"off", KernelFilterOff, true},
		{"required", KernelFilterRequired, true},
		{"on", "on", false},
	} {
		e := Enforce{tt.in}
		if err := e.normalize(); (err == nil) != tt.ok || e.KernelFilter != tt.want {
			t.Errorf("%q: got %q, %v", tt.in, e.KernelFilter, err)
		}
	}
}
