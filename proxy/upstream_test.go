package proxy

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// A server that greets after timeouts.dial, because it looks names up, is no
// dead one: also where TLS has to be asked for, which it is after the greeting.
func TestLateGreetingBeforeSTARTTLS(t *testing.T) {
	const dial = 100 * time.Millisecond
	cert, key := writeCertificate(t, t.TempDir(), "imap.example.test")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	late := func(s *session) {
		<-time.After(3 * dial) // this is how slow it is
		fmt.Fprint(s, "* OK [CAPABILITY IMAP4rev1 STARTTLS] Dovecot ready.\r\n")
		tag, _, _ := strings.Cut(s.line(), " ")
		fmt.Fprintf(s, "%s OK begin\r\n", tag)
		secured := newClient(t, tls.Server(s.Conn, &tls.Config{Certificates: []tls.Certificate{pair}}))
		tag, _, _ = strings.Cut(secured.line(), " ")
		fmt.Fprintf(secured, "%s OK Logged in\r\n", tag)
	}
	b := newBed(t, imapPlain, late, func(c *Config, _ *guard.Config) {
		c.Upstreams[0].TLS, c.Upstreams[0].CA, c.Upstreams[0].ServerName = protocol.TLSStartTLS, cert, "imap.example.test"
		c.Timeouts.Dial = guard.Duration(dial)
	})
	c := b.dial("127.0.0.7")
	c.expect("* OK")
	c.send("a LOGIN alice right")
	c.expect("a OK")
}

// A handshake that gets no answer behind a PROXY header has a likely cause, and
// the operator is told.
func TestLostHandshakeIsExplained(t *testing.T) {
	silent := func(s *session) { s.rest() }
	b := newBed(t, imapPlain, silent, func(c *Config, _ *guard.Config) {
		c.Upstreams[0].TLS, c.Upstreams[0].Insecure = protocol.TLSImplicit, true
		c.Timeouts.Dial = guard.Duration(100 * time.Millisecond)
	})
	c := b.dial("127.0.0.7")
	c.expect("* OK")
	c.send("a LOGIN alice right")
	c.expect("* BYE [UNAVAILABLE]")
	b.waitFor("the advice in the log", func() bool {
		return strings.Contains(b.log.String(), "OpenSMTPD can lose a handshake")
	})
}

// What a connection waits for ends with it, and is no fault that its log line
// should tell of.
func TestABanDuringTheDialIsNoFault(t *testing.T) {
	silent := func(s *session) { s.rest() }
	b := newBed(t, imapPlain, silent, func(c *Config, _ *guard.Config) {
		c.Upstreams[0].TLS, c.Upstreams[0].Insecure = protocol.TLSStartTLS, true
	})
	client := b.dial("127.0.0.8")
	client.expect("* OK")
	client.send("a LOGIN alice right")
	c := b.only()
	b.waitFor("the dial", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.cancel != nil
	})
	if _, err := b.guard.AddBan(guard.BanRequest{Target: "127.0.0.8"}); err != nil {
		t.Fatal(err)
	}
	end := ""
	b.waitFor("the end", func() bool {
		for line := range strings.Lines(b.log.String()) {
			if strings.Contains(line, "client=127.0.0.8") {
				end = line
			}
		}
		return end != ""
	})
	if !strings.Contains(end, "end=banned") || strings.Contains(end, "error=") {
		t.Errorf("the log says %s", end)
	}
}
