package testbed

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Ports are taken from below Linux's range for outgoing connections (32768 and
// up), or a client of one test could sit on the port of another's server.
const (
	lowestPort  = 20000
	highestPort = 32000
)

// handedOut are the ports that this process has been given: between the moment
// a port is found free and the one in which its server listens, another test
// must not find it too. Other test processes are kept off by a lock on the
// file's octet of that number, which ends with the process.
var handedOut struct {
	sync.Mutex
	ports map[int]bool
	file  *os.File
}

// portLock is the file that test processes share.
const portLock = "/tmp/mailreeve-ports.lock"

// freePorts finds n loopback ports that nobody listens on, nor is about to.
func freePorts(n int) ([]int, error) {
	handedOut.Lock()
	defer handedOut.Unlock()
	if handedOut.ports == nil {
		file, err := os.OpenFile(portLock, os.O_CREATE|os.O_RDWR, 0o666)
		if err != nil {
			return nil, fmt.Errorf("lock ports: %w", err)
		}
		handedOut.ports, handedOut.file = map[int]bool{}, file
	}
	ports := make([]int, 0, n)
	for tries := 0; len(ports) < n && tries < 1000; tries++ {
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		if handedOut.ports[port] || !lockPort(handedOut.file, port) || !canListen(port) {
			continue
		}
		handedOut.ports[port] = true
		ports = append(ports, port)
	}
	if len(ports) < n {
		return nil, fmt.Errorf("found %d of %d free loopback ports", len(ports), n)
	}
	return ports, nil
}

func lockPort(file *os.File, port int) bool {
	octet := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: int64(port), Len: 1}
	return unix.FcntlFlock(file.Fd(), unix.F_SETLK, &octet) == nil
}

func canListen(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// FreePort finds one port, for a listener whose address a test chooses itself.
func FreePort(t testing.TB) int {
	t.Helper()
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	return ports[0]
}
