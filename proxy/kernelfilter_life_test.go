package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"mailreeve/guard"
)

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
