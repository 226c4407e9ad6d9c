package integration

import (
	"fmt"
	"testing"

	"mailreeve/integration/testbed"
)

// With five hundred connections open that say nothing, or nothing that needs
// the server, the server has none.
func TestSilentConnectionsCostTheServerNothing(t *testing.T) {
	t.Parallel()
	const silent = 500
	imap := testbed.NewFake(t, testbed.Script{Protocol: "imap",
		Login: func(testbed.FakeLogin) string { return testbed.IMAPAccepted }})
	smtp := testbed.NewFake(t, testbed.Script{Protocol: "smtp"})
	cfg := testbed.InFront("imap", "starttls", imap.Port, nil)
	cfg.Upstreams = append(cfg.Upstreams, testbed.Upstream{
		Name: "mx", Addresses: []string{fmt.Sprintf("127.0.0.1:%d", smtp.Port)}})
	cfg.Listeners = append(cfg.Listeners,
		testbed.Listener{Name: "mx", Protocol: "smtp", TLS: "starttls", Upstream: "mx"},
		testbed.Listener{Name: "imaps", Protocol: "imap", TLS: "implicit", Upstream: "server"})
	p := bed.NewProxy(t, cfg)

	opening := [...]func(from string) (*testbed.Conn, error){
		func(from string) (*testbed.Conn, error) { return testbed.Dial(from, p.Port("imap")) },
		func(from string) (*testbed.Conn, error) { return testbed.Dial(from, p.Port("imaps")) },
		func(from string) (*testbed.Conn, error) { return testbed.Dial(from, p.Port("mx")) },
		func(from string) (*testbed.Conn, error) {
			conn, err := testbed.Dial(from, p.Port("mx"))
			if err != nil {
				return nil, err
			}
			if _, err := conn.Reply(); err != nil {
				return nil, err
			}
			_, err = conn.SMTP("EHLO scanner.example.test")
			return conn, err
		},
		func(from string) (*testbed.Conn, error) {
			conn, err := testbed.Dial(from, p.Port("imap"))
			if err != nil {
				return nil, err
			}
			if _, err := conn.Line(); err != nil {
				return nil, err
			}
			_, err = conn.IMAP("c", "CAPABILITY")
			return conn, err
		},
	}
	for i := range silent {
		conn, err := opening[i%len(opening)](fmt.Sprintf("127.35.%d.%d", i/250, i%250+1))
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	testbed.Eventually(t, "all connections to be counted as open", func() bool {
		return p.Metric(testbed.MetricConnections, nil) == silent
	})
	for name, fake := range map[string]*testbed.Fake{"imap": imap, "mx": smtp} {
		if n := fake.Clients(); n != 0 {
			t.Errorf("the %s server had %d connections for clients", name, n)
		}
	}
	// And the server is there for who needs it.
	mustLogin(t, p.Guess("imaps", "127.35.9.1", "someone@example.test", bed.Secrets.New("someone")))
	if n := imap.Clients(); n != 1 {
		t.Errorf("the imap server had %d connections, want 1", n)
	}
}
