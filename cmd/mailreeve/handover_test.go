package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listenAsSystemd is systemd's end of NOTIFY_SOCKET.
func listenAsSystemd(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

// receive gives the next message and the file that came with it, if any.
func receive(t *testing.T, c *net.UnixConn) (state string, f *os.File) {
	t.Helper()
	p, oob := make([]byte, 1000), make([]byte, 1000)
	n, rights, _, _, err := c.ReadMsgUnix(p, oob)
	if err != nil {
		t.Fatal(err)
	}
	if rights == 0 {
		return string(p[:n]), nil
	}
	list, err := unix.ParseSocketControlMessage(oob[:rights])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&list[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(p[:n]), os.NewFile(uintptr(fds[0]), "received")
}

// systemd is given the very file, under its name.
func TestSystemdIsGivenSockets(t *testing.T) {
	systemd := listenAsSystemd(t)
	store, empty := systemdSockets()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := store.Keep("listener _25", w); err != nil {
		t.Fatal(err)
	}
	state, got := receive(t, systemd)
	if want := "FDSTORE=1\nFDNAME=listener _25"; state != want || got == nil {
		t.Fatalf("told %q with %v, want %q with a file", state, got, want)
	}
	w.Close()
	_, _ = got.WriteString("the same")
	got.Close()
	if text, err := io.ReadAll(r); string(text) != "the same" {
		t.Errorf("through the file came %q, %v", text, err)
	}
	if err := empty(); err != nil { // there is nothing of an earlier run
		t.Error(err)
	}
}

// A drop is over when systemd has seen to it, and not before.
func TestSystemdDropsSockets(t *testing.T) {
	systemd := listenAsSystemd(t)
	store, _ := systemdSockets()
	over := make(chan error, 1)
	go func() { over <- store.Drop("listener _25") }()
	if state, _ := receive(t, systemd); state != "FDSTOREREMOVE=1\nFDNAME=listener _25" {
		t.Errorf("told %q", state)
	}
	state, barrier := receive(t, systemd)
	if state != "BARRIER=1" || barrier == nil {
		t.Fatalf("told %q with %v, want a barrier", state, barrier)
	}
	select {
	case err := <-over:
		t.Errorf("it is over before systemd is done: %v", err)
	default:
	}
	barrier.Close()
	if err := <-over; err != nil {
		t.Error(err)
	}
}
