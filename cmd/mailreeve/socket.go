package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"
)

// socketMode lets root and the program's group in.
const socketMode = 0o660

// listenAdmin opens the admin socket. A socket that a crash left behind is
// replaced, one that somebody answers on is not.
func listenAdmin(ctx context.Context, path string) (net.Listener, error) {
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("admin.socket: %s exists and is not a socket", path)
	case err == nil:
		var dialer net.Dialer
		if c, err := dialer.DialContext(ctx, "unix", path); err == nil {
			c.Close()
			return nil, fmt.Errorf("admin.socket: another mailreeve answers on %s", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("admin.socket: %w", err)
		}
	}
	// The mode must be right from the first moment, so it comes from the
	// umask, and only then from chmod (for a umask that is stricter).
	old := syscall.Umask(0o777 &^ socketMode)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("admin.socket: %w; its directory must exist and be writable for us (systemd: RuntimeDirectory=mailreeve)", err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		l.Close()
		return nil, fmt.Errorf("admin.socket: %w", err)
	}
	return l, nil
}
