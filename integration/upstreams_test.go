package integration

import (
	"fmt"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// An address that does not answer is passed over.
func TestADeadAddressIsPassedOver(t *testing.T) {
	t.Parallel()
	dead := testbed.NewFake(t, testbed.Script{Protocol: "imap"})
	dead.Suspend()
	alive := testbed.NewFake(t, testbed.Script{Protocol: "imap", Login: always(testbed.IMAPAccepted)})
	cfg := testbed.InFront("imap", "implicit", dead.Port, nil)
	cfg.Upstreams[0].Addresses = append(cfg.Upstreams[0].Addresses, fmt.Sprintf("127.0.0.1:%d", alive.Port))
	p := bed.NewProxy(t, cfg)
	for i := range 5 {
		mustLogin(t, p.Guess("imap", fmt.Sprintf("127.43.0.%d", i+1), "someone@example.test", bed.Secrets.New("failover")))
	}
	if n := alive.Clients(); n != 5 {
		t.Errorf("the server that lives had %d connections, want 5", n)
	}
}

// Servers are reached as they wish to be: with a header of version 2 or 1 or
// none, in the clear or over TLS.
func TestEveryWayToTheServer(t *testing.T) {
	t.Parallel()
	user := bed.Users[22]
	address := func(port int) []string { return []string{fmt.Sprintf("127.0.0.1:%d", port)} }
	cases := []struct {
		name     string
		upstream testbed.Upstream
		protocol string
		seen     bool // whether the server learns the client's address
	}{
		{"submission v2", testbed.Upstream{Addresses: address(bed.Postfix.SubmissionProxy)}, "submission", true},
		{"submission v1", testbed.Upstream{Addresses: address(bed.Postfix.SubmissionProxy), ProxyProtocol: "v1"}, "submission", true},
		{"submission v2, TLS", testbed.Upstream{Addresses: address(bed.Postfix.SMTPSProxy), TLS: "implicit", CA: bed.CA.File, ServerName: "mx.example.test"}, "submission", true},
		{"submission without header, STARTTLS", testbed.Upstream{Addresses: address(bed.Postfix.Submission), ProxyProtocol: "none", TLS: "starttls", CA: bed.CA.File, ServerName: "mx.example.test"}, "submission", false},
		{"imap v2", testbed.Upstream{Addresses: address(bed.Dovecot.IMAPProxy)}, "imap", true},
		{"imap v2, TLS", testbed.Upstream{Addresses: address(bed.Dovecot.IMAPSProxy), TLS: "implicit", CA: bed.CA.File, ServerName: "imap.example.test"}, "imap", true},
		{"imap without header, TLS", testbed.Upstream{Addresses: address(bed.Dovecot.IMAPS), ProxyProtocol: "none", TLS: "implicit", CA: bed.CA.File, ServerName: "imap.example.test"}, "imap", false},
		{"imap without header, STARTTLS", testbed.Upstream{Addresses: address(bed.Dovecot.IMAP), ProxyProtocol: "none", TLS: "starttls", CA: bed.CA.File, ServerName: "imap.example.test"}, "imap", false},
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := testbed.InFront(c.protocol, "implicit", 1, nil)
			c.upstream.Name = "server"
			cfg.Upstreams = []testbed.Upstream{c.upstream}
			p := bed.NewProxy(t, cfg)
			from := fmt.Sprintf("127.43.1.%d", i+1)
			mustLogin(t, p.Guess(c.protocol, from, user.Login, user.Password))
			if c.seen && c.protocol == "imap" {
				bed.Dovecot.Log.Await(t, `Login: user=<`+user.Login+`>.*rip=`+strings.ReplaceAll(from, ".", `\.`)+`,`)
			} else if c.seen {
				bed.Postfix.Log.Await(t, `connect from unknown\[`+strings.ReplaceAll(from, ".", `\.`)+`\]`)
			}
		})
	}
}

// A server that does not expect the header, or wants one and gets none, is
// found by check, with the line to change.
func TestCheckNamesAHeaderMismatch(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, protocol, header string
		port                   int
		want                   string
	}{
		{"Postfix does not expect it", "smtp", "v2", bed.Postfix.MX, "smtpd_upstream_proxy_protocol"},
		{"Dovecot does not expect it", "imap", "v2", bed.Dovecot.IMAP, "haproxy"},
		{"Postfix wants it", "smtp", "none", bed.Postfix.MXProxy, "proxy-protocol"},
		{"Dovecot wants it", "imap", "none", bed.Dovecot.IMAPProxy, "proxy-protocol"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := testbed.InFront(c.protocol, "none", c.port, nil)
			cfg.Upstreams[0].ProxyProtocol = c.header
			p := bed.PrepareProxy(t, cfg)
			out, errs, err := p.Run("check")
			if err == nil {
				t.Fatalf("check finds nothing wrong:\n%s", out)
			}
			if !strings.Contains(out+errs, c.want) {
				t.Errorf("check does not name %s:\n%s%s", c.want, out, errs)
			}
		})
	}
	t.Run("all is well", func(t *testing.T) {
		t.Parallel()
		p := bed.PrepareProxy(t, bed.Standard(nil))
		if out, errs, err := p.Run("check"); err != nil {
			t.Errorf("check: %v\n%s%s", err, out, errs)
		}
	})
}
