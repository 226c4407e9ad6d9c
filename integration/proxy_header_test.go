package integration

import (
	"net"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"mailreeve/integration/testbed"
)

// balancer is a trusted peer: a load balancer in front of us.
const balancer = "127.40.0.1"

func behindBalancer(t *testing.T, rules map[string]any) *testbed.Proxy {
	t.Helper()
	cfg := bed.Standard(rules).Without("mx", "submission", "submissions", "imap")
	cfg.Listeners[0].TrustedProxies = []string{balancer + "/32"}
	cfg.Timeouts = map[string]any{"proxy-header": "1s"}
	return bed.NewProxy(t, cfg)
}

// sendHeader connects from an address and claims to speak for a client.
func sendHeader(t *testing.T, from, client string, port int, version byte) *testbed.Conn {
	t.Helper()
	conn, err := testbed.Dial(from, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	header := &proxyproto.Header{
		Version: version, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4,
		SourceAddr:      &net.TCPAddr{IP: net.ParseIP(client), Port: 4711},
		DestinationAddr: &net.TCPAddr{IP: net.ParseIP("192.0.2.25"), Port: 993},
	}
	if _, err := header.WriteTo(conn); err != nil {
		t.Fatal(err)
	}
	return conn
}

// loginThrough logs in over a connection that has sent its header.
func loginThrough(conn *testbed.Conn, user testbed.User, password string) (testbed.Answer, error) {
	if err := conn.Handshake(testbed.AnyTLS()); err != nil {
		return testbed.Unanswered, err
	}
	if _, err := conn.Line(); err != nil {
		return testbed.Unanswered, err
	}
	line, err := conn.IMAP("a", "LOGIN %s %s", user.Login, password)
	return testbed.Classify("imap", line), err
}

// A trusted peer's header is believed: the server and the guard know the
// client, and a ban is the client's, never the peer's.
func TestATrustedPeerSpeaksForItsClients(t *testing.T) {
	t.Parallel()
	p := behindBalancer(t, map[string]any{"authentication": "3/1h"})
	user := bed.Users[35]
	for _, version := range []byte{1, 2} {
		answer, err := loginThrough(sendHeader(t, balancer, "198.51.100.40", p.Port("imaps"), version), user, user.Password)
		if answer != testbed.Accepted {
			t.Errorf("a login with a v%d header: %v, %v", version, answer, err)
		}
	}
	bed.Dovecot.Log.Await(t, `Login: user=<`+user.Login+`>.*rip=198\.51\.100\.40,`)

	for i := range 3 {
		loginThrough(sendHeader(t, balancer, "198.51.100.41", p.Port("imaps"), 2), user, bed.Secrets.New("header"+string(rune('a'+i))))
	}
	mustBan(t, p, "198.51.100.41")
	if _, ok := p.Banned(balancer); ok {
		t.Fatal("the balancer is banned")
	}
	conn := sendHeader(t, balancer, "198.51.100.41", p.Port("imaps"), 2)
	if said, err := conn.Rest(); err != nil || said != "" {
		t.Errorf("a banned client behind the balancer hears %q, %v", said, err)
	}
	answer, err := loginThrough(sendHeader(t, balancer, "198.51.100.42", p.Port("imaps"), 2), user, user.Password)
	if answer != testbed.Accepted {
		t.Errorf("another client of the balancer: %v, %v", answer, err)
	}
}

// From anybody else a header is not believed; to connect without one is what
// other clients do.
func TestNobodyElseIsBelieved(t *testing.T) {
	t.Parallel()
	p := behindBalancer(t, map[string]any{"authentication": "3/1h"})
	user := bed.Users[36]
	conn := sendHeader(t, "127.40.0.2", "198.51.100.43", p.Port("imaps"), 2)
	if err := conn.Handshake(testbed.AnyTLS()); err == nil {
		t.Error("a stranger's header was read")
	}
	mustLogin(t, p.Guess("imaps", "127.40.0.3", user.Login, user.Password))
	bed.Dovecot.Log.Await(t, `Login: user=<`+user.Login+`>.*rip=127\.40\.0\.3,`)
	if n := bed.Dovecot.Log.Count(`rip=198\.51\.100\.43`); n > 0 {
		t.Error("Dovecot was told the address that a stranger made up")
	}
}

// A trusted peer that sends no header, or none that can be read, is not served
// as a client, and not scored either: it is a fault, or a health check.
func TestATrustedPeerMustSendAHeader(t *testing.T) {
	t.Parallel()
	p := behindBalancer(t, map[string]any{"authentication": "3/1h", "loitering": "3/1d", "abuse": "3/1d"})
	for _, say := range []string{"", "GET / HTTP/1.0\r\n\r\n", "PROXY TCP4 nonsense\r\n", "\r\n\r\n\x00\r\nQUIT\n\x21"} {
		for range 5 {
			conn, err := testbed.Dial(balancer, p.Port("imaps"))
			if err != nil {
				t.Fatalf("after %q: %v", say, err)
			}
			if _, err := conn.Write([]byte(say)); err != nil {
				t.Fatal(err)
			}
			if said, err := conn.Rest(); err != nil || strings.HasPrefix(said, "* OK") {
				t.Errorf("after %q: %q, %v", say, said, err)
			}
			conn.Close()
		}
	}
	if bans := p.Bans(); len(bans) > 0 {
		t.Errorf("bans: %v", bans)
	}
	if points := p.Points(balancer); points != 0 {
		t.Errorf("the balancer has %v points", points)
	}
}

// The header tells the server what we know of the client's TLS. That there is
// one at all is what lets Dovecot take a password.
func TestTheHeaderTellsOfTLS(t *testing.T) {
	t.Parallel()
	fake := testbed.NewFake(t, testbed.Script{Protocol: "imap", Login: always(testbed.IMAPAccepted)})
	cfg := testbed.InFront("imap", "starttls", fake.Port, nil)
	cfg.Listeners[0].PlaintextAuth = "yes"
	p := bed.NewProxy(t, cfg)
	guess := p.Guess("imap", "127.40.1.1", "header@example.test", bed.Secrets.New("header"))
	mustLogin(t, guess)
	guess.TLS = "none"
	mustLogin(t, guess)
	headers := fake.Headers()
	if len(headers) != 2 {
		t.Fatalf("%d headers, want 2", len(headers))
	}
	ssl := headerTLS(t, headers[0])
	if ssl == nil || !ssl.ClientSSL() {
		t.Fatalf("the header of a connection with TLS does not say so: %+v", ssl)
	}
	if version, ok := ssl.SSLVersion(); !ok || version != "TLSv1.3" {
		t.Errorf("version %q, want TLSv1.3", version)
	}
	if cipher, ok := ssl.SSLCipher(); !ok || !strings.HasPrefix(cipher, "TLS_") {
		t.Errorf("cipher %q", cipher)
	}
	if ssl := headerTLS(t, headers[1]); ssl != nil && ssl.ClientSSL() {
		t.Error("the header of a connection without TLS says that it has")
	}
}

// headerTLS is the header's SSL TLV, nil if it has none.
func headerTLS(t *testing.T, header *proxyproto.Header) *tlvparse.PP2SSL {
	t.Helper()
	tlvs, err := header.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	ssl, ok := tlvparse.FindSSL(tlvs)
	if !ok {
		return nil
	}
	return &ssl
}
