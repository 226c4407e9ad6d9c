package integration

import (
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

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
