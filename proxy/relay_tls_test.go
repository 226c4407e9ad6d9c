package proxy

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"mailreeve/protocol"
)

// What is pipelined behind STARTTLS would be taken for protected data.
func TestBytesBehindStartTLSEndTheConnection(t *testing.T) {
	b := newBed(t, Listener{Protocol: "imap", TLS: protocol.TLSStartTLS}, imap, nil)
	c := b.dial("127.0.0.7")
	c.expect("* OK")
	if _, err := c.Write([]byte("a STARTTLS\r\nb LOGIN alice right\r\n")); err != nil {
		t.Fatal(err)
	}
	if got := c.rest(); strings.Contains(got, "a OK") || !strings.HasPrefix(got, "* BYE") {
		t.Errorf("got %q, want a BYE", got)
	}
	if n := b.fake.sessions.Load(); n != 0 {
		t.Errorf("the server was dialled %d times", n)
	}
}

// So would what comes while the STARTTLS waits for an earlier reply: it has not
// been read then, and is found in the kernel.
func TestBytesThatComeLateBehindStartTLSEndTheConnection(t *testing.T) {
	asked, answer := make(chan bool), make(chan bool)
	b := newBed(t, Listener{Protocol: "smtp", TLS: protocol.TLSStartTLS}, func(s *session) {
		fmt.Fprint(s, "220 mx.example.test ESMTP Postfix\r\n")
		for line := s.line(); line != ""; line = s.line() {
			if strings.HasPrefix(line, "MAIL") {
				asked <- true
				<-answer
			}
			fmt.Fprint(s, "250 mx.example.test\r\n")
		}
	}, nil)
	c := b.dial("127.0.0.19")
	c.expect("220 ")
	c.send("EHLO x")
	for line := c.line(); strings.HasPrefix(line, "250-"); line = c.line() {
	}
	c.send("MAIL FROM:<a@example.test>", "STARTTLS")
	<-asked
	c.send("RCPT TO:<b@example.test>")
	close(answer)
	c.expect("250 ")
	if got := c.rest(); !strings.HasPrefix(got, "421 ") && !strings.HasPrefix(got, "5") {
		t.Errorf("STARTTLS is answered %q, want a refusal and the end", got)
	}
	b.waitFor("the injection in the log", func() bool {
		return strings.Contains(b.log.String(), string(protocol.Injection)+":1")
	})
}

// The header tells the server who the client is and that TLS is up.
func TestServerIsToldTheFacts(t *testing.T) {
	headers := make(chan *proxyproto.Header, 1)
	b := newBed(t, Listener{Protocol: "imap", TLS: protocol.TLSStartTLS}, func(s *session) {
		headers <- s.header
		imap(s)
	}, nil)
	c := b.dial("127.0.0.8")
	c.expect("* OK")
	c.send("a STARTTLS")
	c.expect("a OK")
	c = c.startTLS()
	c.send("b LOGIN alice right")
	c.expect("b OK")
	h := <-headers
	if got := h.SourceAddr.String(); !strings.HasPrefix(got, "127.0.0.8:") {
		t.Errorf("source is %s", got)
	}
	tlvs, err := h.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	ssl, ok := tlvparse.FindSSL(tlvs)
	if !ok || !ssl.ClientSSL() {
		t.Fatalf("no SSL in the header: %v", tlvs)
	}
	if v, _ := ssl.SSLVersion(); v != "TLSv1.3" {
		t.Errorf("version is %q", v)
	}
}

func TestWrongALPNIsRefused(t *testing.T) {
	b := newBed(t, Listener{Protocol: "imap", TLS: protocol.TLSImplicit}, imap, nil)
	for _, test := range []struct {
		protos []string
		ok     bool
	}{{nil, true}, {[]string{"imap"}, true}, {[]string{"http/1.1", "h2"}, false}} {
		c := b.dial("127.0.0.9")
		err := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true, NextProtos: test.protos}).Handshake()
		if (err == nil) != test.ok {
			t.Errorf("ALPN %v: %v", test.protos, err)
		}
	}
}

// Programs of people get authenticated encryption only, unless the operator has
// older ones; servers that deliver get whatever is better than clear text.
func TestOldCiphers(t *testing.T) {
	yes := true
	for _, test := range []struct {
		name     string
		listener Listener
		serve    func(*session)
		ok       bool
	}{
		{"imap", Listener{Protocol: "imap", TLS: protocol.TLSImplicit}, imap, false},
		{"imap with old-ciphers", Listener{Protocol: "imap", TLS: protocol.TLSImplicit, OldCiphers: &yes}, imap, true},
		{"smtp", Listener{Protocol: "smtp", TLS: protocol.TLSImplicit}, mx, true},
	} {
		b := newBed(t, test.listener, test.serve, nil)
		for _, suite := range []struct {
			id  uint16
			old bool
		}{
			{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, false},
			{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, false},
			{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, true},
		} {
			err := tls.Client(b.dial("127.0.0.9").Conn, &tls.Config{InsecureSkipVerify: true,
				MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.id}}).Handshake()
			if ok := test.ok || !suite.old; (err == nil) != ok {
				t.Errorf("%s, %s: %v", test.name, tls.CipherSuiteName(suite.id), err)
			}
		}
	}
}
