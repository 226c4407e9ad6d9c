package testbed

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Ports are taken from below Linux's range for outgoing connections (32768 and
// up), or a client of one test could sit on the port of another's server.
const (
	lowestPort  = 20000
	highestPort = 32000
)

// handedOut are the ports that this process has been given: between the moment
// a port is found free and the one in which its server listens, another test
// must not find it too.
var handedOut struct {
	sync.Mutex
	ports map[int]bool
}

// freePorts finds n loopback ports that nobody listens on. Two processes may
// be handed the same one; the range is wide enough to make that rare, and the
// loser says "address already in use".
func freePorts(n int) ([]int, error) {
	handedOut.Lock()
	defer handedOut.Unlock()
	if handedOut.ports == nil {
		handedOut.ports = map[int]bool{}
	}
	ports := make([]int, 0, n)
	for tries := 0; len(ports) < n && tries < 1000; tries++ {
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		if handedOut.ports[port] || !canListen(port) {
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
