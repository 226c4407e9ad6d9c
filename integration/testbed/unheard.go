package testbed

import (
	"errors"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// KernelFilter is the setting that tests run mailreeve with: off, unless
// MAILREEVE_TEST_KERNEL_FILTER says otherwise. With it a banned client's SYNs
// are dropped, which takes a client long to notice.
func KernelFilter() string {
	if set := os.Getenv("MAILREEVE_TEST_KERNEL_FILTER"); set != "" {
		return set
	}
	return "off"
}

// giveUpEarly has the kernel end a connection attempt whose SYN nobody answers
// after 3 s (tcp(7), TCP_SYNCNT), where that is to be expected. A limit of our
// own as short as that would end those, too, that wait for us on a busy
// machine.
func giveUpEarly(_, _ string, c syscall.RawConn) error {
	if KernelFilter() == "off" {
		return nil
	}
	var optErr error
	err := c.Control(func(fd uintptr) {
		optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_SYNCNT, 1)
	})
	return errors.Join(err, optErr)
}

// Unheard sends one SYN from a loopback address to a loopback port, and tells
// whether nobody answered. The answer to a local SYN has come when connect
// returns.
func Unheard(from string, port int) (bool, error) {
	source, err := netip.ParseAddr(from)
	if err != nil {
		return false, err
	}
	family := unix.AF_INET6
	var bind, to unix.Sockaddr = &unix.SockaddrInet6{Addr: source.As16()},
		&unix.SockaddrInet6{Port: port, Addr: netip.IPv6Loopback().As16()}
	if source.Is4() {
		family = unix.AF_INET
		bind = &unix.SockaddrInet4{Addr: source.As4()}
		to = &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, bind); err != nil {
		return false, err
	}
	if err := unix.Connect(fd, to); !errors.Is(err, unix.EINPROGRESS) {
		return false, nil // refused
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == unix.BPF_TCP_SYN_SENT, err
}
