package testbed

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Ports are taken from below Linux's range for outgoing connections (32768 and
// up), or a client of one test could sit on the port of another's server.
const (
	lowestPort  = 20000
	highestPort = 32000
)

// freePorts finds n loopback ports that nobody listens on. Two processes may
// be handed the same one; the range is wide enough to make that rare, and the
// loser says "address already in use".
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	taken := map[int]bool{}
	for tries := 0; len(ports) < n && tries < 1000; tries++ {
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		if taken[port] || !canListen(port) {
			continue
		}
		taken[port] = true
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
