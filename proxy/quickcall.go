package proxy

import (
	"encoding/binary"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is asked of a socket beside reading and writing, none of which waits, is
// asked in the way of a quickConn: by system calls that Go's scheduler does not
// hear of. One that it hears of wakes the runtime's monitor thread whenever
// that sleeps, which then looks for blocked calls every 20 µs for some
// milliseconds: with a few such calls a connection it never sleeps, and took a
// tenth of what a connection costs.

// result is a call's error, nil for none.
func result(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func quickSocket(family int) (int, error) {
	const kind = unix.SOCK_STREAM | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	fd, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, uintptr(family), kind, 0)
	return int(fd), os.NewSyscallError("socket", result(errno))
}

func quickClose(fd int) { _, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// quickConnect begins a connection. It gives EINPROGRESS, unless the connection
// stands or has failed already.
func quickConnect(fd int, to netip.AddrPort) error {
	var sa unix.RawSockaddrInet6 // the larger one
	size := uintptr(unix.SizeofSockaddrInet6)
	ip := to.Addr().Unmap()
	if ip.Is4() {
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa))
		sa4.Family, sa4.Addr = unix.AF_INET, ip.As4()
		putPort(&sa4.Port, to.Port())
		size = unix.SizeofSockaddrInet4
	} else {
		sa.Family, sa.Addr = unix.AF_INET6, ip.As16()
		putPort(&sa.Port, to.Port())
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), size)
	return result(errno)
}

// quickName asks for a socket's own address or its peer's, as trap says.
func quickName(trap uintptr, fd int) (netip.AddrPort, error) {
	var sa unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	_, _, errno := syscall.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	return addrPortOf(&sa), result(errno)
}

// addrPortOf is what the kernel has written down, as the guard knows addresses.
func addrPortOf(sa *unix.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), getPort(&sa.Port))
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), getPort(&sa.Port))
	}
	return netip.AddrPort{}
}

// Ports are in network order.
func getPort(p *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:]) }
func putPort(p *uint16, port uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(p))[:], port)
}

func quickSetOption(fd, level, option, value int) error {
	v := int32(value)
	_, _, errno := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	return os.NewSyscallError("setsockopt", result(errno))
}

// quickLinger has a close of the socket tell the peer at once, by a reset.
func quickLinger(fd int) {
	linger := unix.Linger{Onoff: 1}
	_, _, _ = syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0)
}

// quickFault gives the error of a connection that could not be made.
func quickFault(fd int) error {
	var code int32
	size := uint32(unsafe.Sizeof(code))
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR,
		uintptr(unsafe.Pointer(&code)), uintptr(unsafe.Pointer(&size)), 0)
	if errno == 0 {
		errno = syscall.Errno(code)
	}
	return result(errno)
}

// quickState gives a TCP connection's state, one of unix.BPF_TCP_*.
func quickState(fd int) uint8 {
	var info [8]byte // the state comes first
	size := uint32(len(info))
	if _, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return unix.BPF_TCP_CLOSE
	}
	return info[0]
}

func quickShutdown(fd, how int) error {
	_, _, errno := syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), uintptr(how), 0)
	return result(errno)
}

// quickReceive is recvfrom(2) without the sender's address.
func quickReceive(fd int, p []byte, flags int) (int, error) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), uintptr(flags), 0, 0)
	return int(n), result(errno)
}

// mostDiscarded is how much is dropped at once, in bytes. No receive buffer
// that we have not asked for holds more.
const mostDiscarded = 64 << 20

// quickDiscard drops what has come. With MSG_TRUNC it is not even copied
// (tcp(7)).
func quickDiscard(fd int) {
	_, _, _ = syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, mostDiscarded, unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
}
