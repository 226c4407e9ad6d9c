package integration

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// handshake connects and returns the certificate that was shown.
func handshake(p *testbed.Proxy, listener, name string, cfg *tls.Config) (*x509.Certificate, error) {
	conn, err := testbed.Dial("127.41.0.1", p.Port(listener))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	cfg = cfg.Clone()
	cfg.ServerName, cfg.RootCAs = name, bed.CA.Pool
	if err := conn.Handshake(cfg); err != nil {
		return nil, err
	}
	return conn.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// Certificates are chosen by name, and those that are renewed are shown from
// then on, while connections with the old ones live on.
func TestCertificatesAreSwapped(t *testing.T) {
	t.Parallel()
	dir := bed.TempDir(t)
	pair := func(name string) testbed.Certificate {
		return testbed.Certificate{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key")}
	}
	issue := func(name string) {
		t.Helper()
		if err := bed.CA.Issue(filepath.Join(dir, name), name); err != nil {
			t.Fatal(err)
		}
	}
	issue("mx.example.test")
	issue("imap.example.test")
	cfg := bed.Standard(nil)
	cfg.Certificates = []testbed.Certificate{pair("mx.example.test"), pair("imap.example.test")}
	p := bed.NewProxy(t, cfg)

	for _, name := range []string{"mx.example.test", "imap.example.test"} {
		cert, err := handshake(p, "imaps", name, &tls.Config{})
		if err != nil || cert.Subject.CommonName != name {
			t.Errorf("asked for %s, got %v, %v", name, cert, err)
		}
	}
	if cert, err := handshake(p, "imaps", "other.example.test", &tls.Config{InsecureSkipVerify: true}); err != nil || cert.Subject.CommonName != "mx.example.test" {
		t.Errorf("asked for an unknown name, got %v, %v; want the first certificate", cert, err)
	}

	user := bed.Users[37]
	open := mustLogin(t, p.Guess("imaps", "127.41.0.2", user.Login, user.Password))
	before, err := handshake(p, "imaps", "imap.example.test", &tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	issue("imap.example.test")
	testbed.Eventually(t, "the new certificate", func() bool {
		now, err := handshake(p, "imaps", "imap.example.test", &tls.Config{})
		return err == nil && now.SerialNumber.Cmp(before.SerialNumber) != 0
	})
	if line, err := open.IMAP("n", "NOOP"); err != nil || !strings.HasPrefix(line, "n OK") {
		t.Errorf("the connection with the old certificate: %q, %v", line, err)
	}
}

// TLS 1.2 and 1.3 are spoken, older ones not; a client that offers only another
// protocol's ALPN is refused (ALPACA).
func TestOldTLSAndForeignALPNAreRefused(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, bed.Standard(nil))
	for _, c := range []struct {
		name string
		cfg  *tls.Config
		ok   bool
	}{
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"TLS 1.3", &tls.Config{MinVersion: tls.VersionTLS13}, true},
		{"ALPN imap", &tls.Config{NextProtos: []string{"imap"}}, true},
		{"ALPN h2", &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, false},
	} {
		if _, err := handshake(p, "imaps", "mx.example.test", c.cfg); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
