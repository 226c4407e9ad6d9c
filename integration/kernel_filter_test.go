package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// Between two hosts the kernel drops the SYNs of banned addresses, and nothing
// else: not the ones of others, not what is connected. A kill takes the filter
// away with the process.
func TestTheKernelDropsTheBannedBetweenHosts(t *testing.T) {
	t.Parallel()
	server, client := testbed.NewHost(t), testbed.NewHost(t)
	server.Join(t, client,
		[]string{"198.51.100.1/24", "2001:db8::1/32"},
		[]string{"198.51.100.2/24", "198.51.100.3/24", "2001:db8:0:2::2/32", "2001:db8:0:3::3/32"})
	fake := testbed.NewFake(t, testbed.Script{Protocol: "imap", Host: server, Login: always(testbed.IMAPAccepted)})
	cfg := testbed.InFront("imap", "none", fake.Port, nil)
	port := testbed.FreePort(t)
	cfg.Listeners[0].Address = fmt.Sprintf(":%d", port)
	cfg.Listeners[0].PlaintextAuth = "yes"
	cfg.Enforce = map[string]any{"kernel-filter": "auto"}
	p := bed.NewProxyOn(t, server, cfg)
	if p.Metric(testbed.MetricFilterOn, nil) == 0 {
		t.Skip("no kernel filter here (it needs CAP_BPF)")
	}

	hosts := []peers{
		{client, "198.51.100.2", "198.51.100.3", fmt.Sprintf("198.51.100.1:%d", port)},
		{client, "2001:db8:0:2::2", "2001:db8:0:3::3", fmt.Sprintf("[2001:db8::1]:%d", port)},
	}
	for _, h := range hosts {
		connected := h.mustGreet(t, h.banned)
		if line, err := connected.IMAP("a", "LOGIN %s %s", "alice@example.test", bed.Secrets.New("hosts")); !strings.HasPrefix(line, "a OK") {
			t.Fatalf("LOGIN: %q, %v", line, err)
		}
		p.Admin("ban", h.banned)
		h.mustBeDropped(t, p)
		h.mustGreet(t, h.other)
		if line, err := connected.IMAP("b", "NOOP"); !strings.HasPrefix(line, "b OK") {
			t.Errorf("the connection that %s had: %q, %v", h.banned, line, err)
		}
	}
	if n := p.Metric(testbed.MetricRefused, testbed.Labels{"reason": "banned"}); n != 0 {
		t.Errorf("%v connections came as far as to be refused", n)
	}

	p.Kill9()
	inItsPlace, err := server.Listen(fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		h.mustConnect(t, h.banned)
	}
	inItsPlace.Close()

	p.Restart()
	testbed.Eventually(t, "the bans to be in the kernel again", func() bool {
		return p.Metric(testbed.MetricFilterEntries, nil) == float64(len(hosts))
	})
	for _, h := range hosts {
		h.mustBeDropped(t, p)
		p.Admin("unban", h.banned)
		h.mustGreet(t, h.banned)
	}
}

// peers are a client with two addresses, one of them banned, and the server's.
type peers struct {
	client        *testbed.Host
	banned, other string
	server        string
}

func (h peers) mustConnect(t *testing.T, from string) *testbed.Conn {
	t.Helper()
	conn, err := h.client.Dial(t.Context(), from, h.server)
	if err != nil {
		t.Fatalf("connect from %s: %v", from, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (h peers) mustGreet(t *testing.T, from string) *testbed.Conn {
	t.Helper()
	conn := h.mustConnect(t, from)
	if line, err := conn.Line(); !strings.HasPrefix(line, "* OK") {
		t.Fatalf("%s is greeted with %q, %v", from, line, err)
	}
	return conn
}

// mustBeDropped connects from the banned address: the kernel counts its SYN, and
// nobody answers.
func (h peers) mustBeDropped(t *testing.T, p *testbed.Proxy) {
	t.Helper()
	before := p.Metric(testbed.MetricFilterDropped, nil)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		conn, err := h.client.Dial(ctx, h.banned, h.server)
		if err == nil {
			conn.Close()
		}
		result <- err
	}()
	testbed.Eventually(t, "a SYN of "+h.banned+" to be dropped", func() bool {
		return p.Metric(testbed.MetricFilterDropped, nil) > before
	})
	cancel()
	var timeout net.Error
	if err := <-result; !errors.Is(err, context.Canceled) && !errors.Is(err, os.ErrDeadlineExceeded) &&
		!(errors.As(err, &timeout) && timeout.Timeout()) {
		t.Errorf("%s: got %v, want no answer", h.banned, err)
	}
}
