package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"mailreeve/guard"
)

func TestHeaderFitsTheSmallestReader(t *testing.T) {
	for _, name := range []string{"", "mx.example.test", strings.Repeat("a123456789.", 22) + "test", "bad host!"} {
		for _, id := range []string{"", "short", strings.Repeat("x", 120)} {
			f := facts{
				client: netip.MustParseAddrPort("[2001:db8::1]:1234"),
				local:  netip.MustParseAddrPort("[2001:db8::2]:993"), id: id,
				tls: &tls.ConnectionState{Version: tls.VersionTLS12, ServerName: name,
					CipherSuite: tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
			}
			b, err := f.header(ProxyV2)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) > maxHeaderSent {
				t.Errorf("name %q id %q: %d bytes", name, id, len(b))
			}
			h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(b)))
			if err != nil {
				t.Fatal(err)
			}
			if h.SourceAddr.String() != "[2001:db8::1]:1234" {
				t.Errorf("source %s", h.SourceAddr)
			}
			tlvs, err := h.TLVs()
			if err != nil {
				t.Fatal(err)
			}
			for _, tlv := range tlvs {
				if tlv.Type == proxyproto.PP2_TYPE_AUTHORITY && string(tlv.Value) == "bad host!" {
					t.Error("a name that is none was sent as AUTHORITY")
				}
			}
		}
	}
}

func TestHeaderV1(t *testing.T) {
	f := facts{client: netip.MustParseAddrPort("192.0.2.1:1234"), local: netip.MustParseAddrPort("192.0.2.2:25")}
	b, err := f.header(ProxyV1)
	if got := string(b); err != nil || got != "PROXY TCP4 192.0.2.1 192.0.2.2 1234 25\r\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestOpenSSLNames(t *testing.T) {
	for id, want := range map[uint16]string{
		tls.TLS_AES_128_GCM_SHA256:                        "TLS_AES_128_GCM_SHA256",
		tls.TLS_AES_256_GCM_SHA384:                        "TLS_AES_256_GCM_SHA384",
		tls.TLS_CHACHA20_POLY1305_SHA256:                  "TLS_CHACHA20_POLY1305_SHA256",
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:       "ECDHE-ECDSA-AES256-GCM-SHA384",
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:   "ECDHE-RSA-CHACHA20-POLY1305",
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA:            "ECDHE-RSA-AES128-SHA",
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: "ECDHE-ECDSA-CHACHA20-POLY1305",
	} {
		if got := opensslCipher(id); got != want {
			t.Errorf("%s: got %s, want %s", tls.CipherSuiteName(id), got, want)
		}
	}
}

// pair is a connected pair of TCP sockets: net.Pipe would hide what the kernel
// does.
func pair(t *testing.T) (client net.Conn, server *quickConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server = takeOver(t, c)
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func TestReadHeader(t *testing.T) {
	v2 := func(command proxyproto.ProtocolVersionAndCommand) string {
		h := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.ParseIP("192.0.2.7"), Port: 5},
			&net.TCPAddr{IP: net.ParseIP("192.0.2.8"), Port: 25})
		h.Command = command
		b, err := h.Format()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, test := range []struct{ what, send, want string }{
		{"v1", "PROXY TCP4 192.0.2.7 192.0.2.8 5 25\r\nEHLO x\r\n", "192.0.2.7"},
		{"v1 mapped", "PROXY TCP6 ::ffff:192.0.2.7 ::1 5 25\r\n", "192.0.2.7"},
		{"v2", v2(proxyproto.PROXY) + "EHLO x\r\n", "192.0.2.7"},
		{"v2 local", v2(proxyproto.LOCAL), "LOCAL header"},
		{"v1 unknown", "PROXY UNKNOWN\r\n", "LOCAL header"},
		{"none", "EHLO example.test\r\n", "no PROXY header"},
		{"endless v1", "PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n", "without a line end"},
		{"huge v2", string(v2Signature) + "\x21\x11\xff\xff", "too long"},
		{"nonsense v1", "PROXY TCP4 300.0.2.7 192.0.2.8 5 25\r\n", "proxyproto"},
	} {
		t.Run(test.what, func(t *testing.T) {
			client, server := pair(t)
			if _, err := client.Write([]byte(test.send)); err != nil {
				t.Fatal(err)
			}
			f, err := readHeader(server, time.Now().Add(patience))
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = f.client.Addr().String()
			}
			if !strings.Contains(got, test.want) {
				t.Fatalf("got %q, want %q", got, test.want)
			}
			if strings.HasSuffix(test.send, "EHLO x\r\n") && err == nil {
				b := make([]byte, 20)
				n, _ := server.Read(b)
				if string(b[:n]) != "EHLO x\r\n" {
					t.Errorf("after the header came %q", b[:n])
				}
			}
		})
	}
}

func TestSlowHeaderEnds(t *testing.T) {
	client, server := pair(t)
	if _, err := client.Write([]byte("PROX")); err != nil {
		t.Fatal(err)
	}
	if _, err := readHeader(server, time.Now().Add(10*time.Millisecond)); !isTimeout(err) {
		t.Errorf("got %v, want a timeout", err)
	}
}

// A trusted peer's header is believed; everybody else's is the client's own
// words.
func TestInboundHeader(t *testing.T) {
	l := imapPlain
	l.TrustedProxies = []string{"127.0.0.20"}
	sources := make(chan string, 1)
	b := newBed(t, l, func(s *session) {
		sources <- s.header.SourceAddr.(*net.TCPAddr).IP.String()
		imap(s)
	}, func(_ *Config, g *guard.Config) { g.Authentication = limit(t, "1/1h") })
	login := func(from, header, password string) string {
		c := b.dial(from)
		fmt.Fprint(c, header)
		c.expect("* OK")
		c.send("a LOGIN alice " + password)
		return c.line()
	}
	const header = "PROXY TCP4 198.51.100.9 192.0.2.1 1 143\r\n"
	const bad = "PROXY TCP4 198.51.100.11 192.0.2.1 1 143\r\n"
	if got := login("127.0.0.20", header, "right"); !strings.HasPrefix(got, "a OK") {
		t.Errorf("through the trusted peer: %q", got)
	}
	if got := <-sources; got != "198.51.100.9" {
		t.Errorf("the server was told %s", got)
	}
	// The ban is on the client in the header, not on the peer.
	login("127.0.0.20", bad, "wrong")
	<-sources
	b.waitFor("the ban", func() bool { return len(b.guard.Bans(guard.BanFilter{})) == 1 })
	c := b.dial("127.0.0.20")
	fmt.Fprint(c, bad)
	if got := c.rest(); got != "" {
		t.Errorf("the banned client was told %q", got)
	}
	if got := login("127.0.0.20", "PROXY TCP4 198.51.100.10 192.0.2.1 1 143\r\n", "right"); !strings.HasPrefix(got, "a OK") {
		t.Errorf("another client through the same peer: %q", got)
	}
	<-sources

	c = b.dial("127.0.0.21")
	c.expect("* OK")
	fmt.Fprint(c, header)
	c.send("a LOGIN alice right")
	select {
	case got := <-sources:
		if got != "127.0.0.21" {
			t.Errorf("a stranger's header was believed: %s", got)
		}
	default:
	}
	if errors.Is(c.Close(), net.ErrClosed) {
		t.Error("closed twice")
	}
}
