package integration

import (
	"fmt"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// A network has no more than its share of connections that have not logged in,
// though each comes from an address of its own. Those that have take no place.
func TestStrangersOfOneNetworkAreLimited(t *testing.T) {
	t.Parallel()
	const limit = 5
	cfg := bed.Standard(nil)
	cfg.Limits = map[string]any{"connections-per-network": limit}
	p := bed.NewProxy(t, cfg)
	user := bed.Users[47]
	for i := range 3 {
		mustLogin(t, p.Guess("imap", fmt.Sprintf("127.46.1.%d", i+1), user.Login, user.Password))
	}
	for i := range limit {
		mustOpen(t, p.Guess("imap", fmt.Sprintf("127.46.1.%d", i+11), "", ""))
	}
	if conn, err := testbed.Dial("127.46.1.21", p.Port("imap")); err == nil {
		defer conn.Close()
		if said, err := conn.Rest(); err == nil && strings.HasPrefix(said, "* OK") {
			t.Errorf("one connection too many hears %q", said)
		}
	}
	testbed.Eventually(t, "the refusal to be counted", func() bool {
		return p.Metric(testbed.MetricRefused, testbed.Labels{"reason": "network-limit"}) == 1
	})
	mustOpen(t, p.Guess("imap", "127.46.2.1", "", ""))
}

// An address has no more than its share of connections, and those of others
// are no concern of it.
func TestConnectionsOfOneAddressAreLimited(t *testing.T) {
	t.Parallel()
	const limit, greedy = 5, "127.46.0.1"
	cfg := bed.Standard(nil)
	cfg.Limits = map[string]any{"connections-per-address": limit}
	p := bed.NewProxy(t, cfg)
	var open []*testbed.Conn
	for range limit {
		open = append(open, mustOpen(t, p.Guess("imap", greedy, "", "")))
	}
	conn, err := testbed.Dial(greedy, p.Port("mx"))
	if err == nil {
		defer conn.Close()
		if said, err := conn.Rest(); err != nil || strings.HasPrefix(said, "220") {
			t.Errorf("one connection too many hears %q, %v", said, err)
		}
	}
	testbed.Eventually(t, "the refusal to be counted", func() bool {
		return p.Metric(testbed.MetricRefused, testbed.Labels{"reason": "address-limit"}) == 1
	})
	mustOpen(t, p.Guess("imap", "127.46.0.2", "", ""))

	open[0].Close()
	testbed.Eventually(t, "a place to be free again", func() bool {
		conn, err := p.Guess("imap", greedy, "", "").Open()
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}
