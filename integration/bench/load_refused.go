package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// bannedClient is the address of the n-th client that the proxies are told to
// refuse.
func bannedClient(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 200, 0, byte(1 + n%bannedClients)})
}

// bannedClients is how many there are.
const bannedClients = 8

// knock is a worker that connects from a banned address and waits to be thrown
// out. It uses bare sockets: what Go does for a connection would cost more
// than what the proxy does.
func knock(_ context.Context, id int, addr string, t *tally) error {
	to := netip.MustParseAddrPort(addr)
	for !t.stop.Load() {
		if err := knockOnce(bannedClient(id), to); err != nil {
			return err
		}
		t.ops.Add(1)
	}
	return nil
}

func knockOnce(from netip.Addr, to netip.AddrPort) error {
	fd, err := boundSocket(from, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// No TIME_WAIT, and no waiting for ever for a proxy that lets us in.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	for _, limit := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} { // The former bounds connect.
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, limit, &unix.Timeval{Sec: 3}); err != nil {
			return err
		}
	}
	switch err := unix.Connect(fd, sockaddr(to)); {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET):
		return nil
	case errors.Is(err, unix.EINTR):
		return nil // Go's scheduler signals threads; one knock less.
	case err != nil:
		return fmt.Errorf("connect from %v: %w", from, err)
	}
	var buf [64]byte
	switch n, err := unix.Read(fd, buf[:]); {
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EINTR), err == nil && n == 0:
		return nil
	case err != nil:
		return fmt.Errorf("%v was not refused: %w", from, err)
	default:
		return fmt.Errorf("%v was not refused but told %q", from, buf[:n])
	}
}

// knockUnheard is a worker that sends SYNs which nobody answers.
func knockUnheard(_ context.Context, id int, addr string, t *tally) error {
	to := netip.MustParseAddrPort(addr)
	for !t.stop.Load() {
		fd, err := boundSocket(bannedClient(id), unix.SOCK_NONBLOCK)
		if err != nil {
			return err
		}
		err = unix.Connect(fd, sockaddr(to))
		// On loopback an answer would be there by now.
		var state uint8
		if info, e := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); e == nil {
			state = info.State
		}
		unix.Close(fd)
		if !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("connect: %w", err)
		}
		if state != tcpSynSent {
			return fmt.Errorf("%v was answered: the kernel filter is not in force", bannedClient(id))
		}
		t.ops.Add(1)
	}
	return nil
}

// tcpSynSent is a socket's state while its SYN is unanswered
// (include/net/tcp_states.h).
const tcpSynSent = 2

func boundSocket(from netip.Addr, flags int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		return 0, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()})
	}
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
}
