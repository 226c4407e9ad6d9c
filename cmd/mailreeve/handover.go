package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"mailreeve/proxy"
)

// barrierWait is how long systemd may take to let go of a socket.
const barrierWait = 5 * time.Second

// systemdSockets is systemd's store of our sockets, with what an earlier run has
// left there, and a function that empties it: where this run cannot serve them,
// senders had better try another server at once. Without systemd, or with
// FileDescriptorStoreMax=0 in the unit, nothing is kept.
func systemdSockets() (store proxy.SocketStore, empty func() error) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return proxy.SocketStore{}, func() error { return nil }
	}
	store = proxy.SocketStore{
		Left: map[string]*os.File{},
		Keep: func(name string, f *os.File) error {
			return notifyWith(socket, "FDSTORE=1\nFDNAME="+name, f)
		},
		Drop: func(name string) error {
			if err := notifyWith(socket, "FDSTOREREMOVE=1\nFDNAME="+name, nil); err != nil {
				return err
			}
			return notifyBarrier(socket)
		},
	}
	for _, f := range activation.Files(true) {
		if old := store.Left[f.Name()]; old != nil {
			old.Close()
		}
		store.Left[f.Name()] = f
	}
	names := slices.Collect(maps.Keys(store.Left))
	return store, func() error {
		var errs []error
		for _, name := range names {
			errs = append(errs, store.Drop(name))
		}
		return errors.Join(errs...)
	}
}

// notifyWith sends a state to systemd, with a file if there is one. go-systemd
// sends none, and a datagram socket of package net that is connected neither.
func notifyWith(socket, state string, f *os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	send := func(rights []byte) error {
		return os.NewSyscallError("sendmsg", unix.Sendmsg(fd, []byte(state), rights, &unix.SockaddrUnix{Name: socket}, 0))
	}
	if f == nil {
		return send(nil)
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = rc.Control(func(fd uintptr) { sendErr = send(unix.UnixRights(int(fd))) })
	return errors.Join(err, sendErr)
}

// notifyBarrier returns when systemd has seen to all that it was told before
// (sd_notify_barrier(3)): it closes the pipe's end that it is given.
func notifyBarrier(socket string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = notifyWith(socket, "BARRIER=1", w)
	w.Close()
	if err != nil {
		return err
	}
	if err := r.SetReadDeadline(time.Now().Add(barrierWait)); err != nil {
		return err
	}
	if _, err := r.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("systemd has not let go of it in %v: %w", barrierWait, context.DeadlineExceeded)
	}
	return nil
}
