package proxy

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/goleak"

	"mailreeve/guard"
	"mailreeve/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen; what must not happen
// is never waited for.
const patience = 20 * time.Second

// A bed is a proxy under test with a scripted server behind it.
type bed struct {
	t      *testing.T
	server *Server
	guard  *guard.Guard
	fake   *fakeServer
	log    *lockedBuffer
	cert   string
	key    string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newBed starts a proxy with one listener. change may edit the configuration
// of both the data path and the guard.
func newBed(t *testing.T, l Listener, serve func(*session), change func(*Config, *guard.Config)) *bed {
	t.Helper()
	b := &bed{t: t, log: &lockedBuffer{}}
	b.cert, b.key = writeCertificate(t, t.TempDir(), "mx.example.test")
	b.fake = newFakeServer(t, serve)
	gc := guard.DefaultConfig()
	gc.ExemptLocal = false
	l.Name, l.Address, l.Upstream = "test", "127.0.0.1:0", "fake"
	cfg := Config{
		Hostname:     "proxy.example.test",
		Certificates: []Certificate{{Cert: b.cert, Key: b.key}},
		Upstreams:    []Upstream{{Name: "fake", Addresses: []string{b.fake.addr()}, ProxyProtocol: ProxyV2}},
		Listeners:    []Listener{l},
		Timeouts:     DefaultTimeouts(),
		Limits:       DefaultLimits(),
	}
	if change != nil {
		change(&cfg, &gc)
	}
	log := slog.New(slog.NewTextHandler(b.log, nil))
	var err error
	b.guard, err = guard.Open(gc, guard.Options{
		Store: guard.StoreConfig{Kind: "embedded", Path: t.TempDir()}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.guard.Close() })
	b.server, err = New(cfg, b.guard, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.server.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := contextNow()
		defer cancel()
		_ = b.server.Shutdown(ctx)
	})
	return b
}

func (b *bed) addr() string { return b.server.Addresses()["test"].String() }

// dial connects as a client from a loopback address of its own.
func (b *bed) dial(from string) *client {
	b.t.Helper()
	c, err := b.tryDial(from)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// tryDial is dial for who may be refused.
func (b *bed) tryDial(from string) (*client, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", b.addr())
	if err != nil {
		return nil, err
	}
	b.t.Cleanup(func() { c.Close() })
	return newClient(b.t, c), nil
}

// knock connects as who is refused: the reset may come before connect has
// returned, or after.
func (b *bed) knock(from string) {
	if c, err := b.tryDial(from); err == nil {
		c.rest()
	}
}

// waitFor polls a condition.
func (b *bed) waitFor(what string, ok func() bool) {
	b.t.Helper()
	waitFor(b.t, what, ok)
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for: %s", what)
		case <-tick.C:
		}
	}
}

// A client speaks lines.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func newClient(t *testing.T, c net.Conn) *client {
	_ = c.SetDeadline(time.Now().Add(patience))
	return &client{t: t, Conn: c, r: bufio.NewReader(c)}
}

func (c *client) send(lines ...string) {
	c.t.Helper()
	if _, err := c.Write([]byte(strings.Join(lines, "\r\n") + "\r\n")); err != nil {
		c.t.Fatal(err)
	}
}

// line reads one line without its end; "" at the end of the connection.
func (c *client) line() string {
	s, _ := c.r.ReadString('\n')
	return strings.TrimRight(s, "\r\n")
}

func (c *client) expect(prefix string) string {
	c.t.Helper()
	got := c.line()
	if !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("got %q, want %q…", got, prefix)
	}
	return got
}

// rest reads to the end of the connection.
func (c *client) rest() string {
	var b strings.Builder
	_, _ = c.r.WriteTo(&b)
	return b.String()
}

// startTLS shakes hands after the go-ahead has been read.
func (c *client) startTLS() *client {
	c.t.Helper()
	tc := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	return newClient(c.t, tc)
}

// A fakeServer is a mail server that a test scripts. It reads the PROXY header
// for real.
type fakeServer struct {
	l        net.Listener
	sessions atomic.Int64 // of clients; probes are not counted
	open     atomic.Int64
	wg       sync.WaitGroup
}

// A session is one connection to it.
type session struct {
	*client
	header *proxyproto.Header
}

func newFakeServer(t *testing.T, serve func(*session)) *fakeServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeServer{l: l}
	f.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() { f.serve(t, c, serve) })
		}
	})
	t.Cleanup(func() { l.Close(); f.wg.Wait() })
	return f
}

func (f *fakeServer) addr() string { return f.l.Addr().String() }

func (f *fakeServer) serve(t *testing.T, c net.Conn, serve func(*session)) {
	defer c.Close()
	s := &session{client: newClient(t, c)}
	h, err := proxyproto.Read(s.r)
	if err != nil {
		return
	}
	s.header = h
	if h.SourceAddr.(*net.TCPAddr).IP.Equal(net.IPv4(127, 0, 0, 1)) {
		probe(s) // clients of the tests come from elsewhere
		return
	}
	f.sessions.Add(1)
	f.open.Add(1)
	defer f.open.Add(-1)
	serve(s)
}

// probe answers whatever a Prober of any protocol asks.
func probe(s *session) {
	fmt.Fprint(s, "* OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR IDLE AUTH=PLAIN] Dovecot ready.\r\n")
	for {
		line := s.line()
		if line == "" {
			return
		}
		tag, verb, _ := strings.Cut(line, " ")
		switch verb {
		case "CAPABILITY":
			fmt.Fprintf(s, "* CAPABILITY IMAP4rev1 LITERAL+ SASL-IR IDLE AUTH=PLAIN\r\n%s OK done\r\n", tag)
		case "LOGOUT":
			fmt.Fprintf(s, "* BYE\r\n%s OK\r\n", tag)
			return
		default:
			fmt.Fprintf(s, "%s OK\r\n", tag)
		}
	}
}

// imap serves logins: passwords that begin with "right" are.
func imap(s *session) {
	fmt.Fprint(s, "* OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR IDLE AUTH=PLAIN] Dovecot ready.\r\n")
	for {
		line := s.line()
		if line == "" {
			return
		}
		f := strings.Fields(line)
		switch strings.ToUpper(f[1]) {
		case "LOGIN":
			if strings.HasPrefix(f[3], "right") {
				fmt.Fprintf(s, "%s OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n", f[0])
			} else {
				fmt.Fprintf(s, "%s NO [AUTHENTICATIONFAILED] Authentication failed.\r\n", f[0])
			}
		case "LOGOUT":
			fmt.Fprintf(s, "* BYE\r\n%s OK\r\n", f[0])
			return
		default:
			fmt.Fprintf(s, "%s OK %s done\r\n", f[0], f[1])
		}
	}
}

// writeCertificate makes a self-signed ECDSA certificate.
func writeCertificate(t *testing.T, dir string, names ...string) (cert, key string) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}, &x509.Certificate{SerialNumber: serial}, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, names[0]+".pem"), filepath.Join(dir, names[0]+".key")
	writeFile(t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	writeFile(t, key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
	return cert, key
}

func writeFile(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

var imapPlain = Listener{Protocol: "imap", TLS: protocol.TLSNone, PlaintextAuth: PlaintextYes}
