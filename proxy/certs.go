package proxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// certWatch is how often the certificate files are looked at for a change.
const certWatch = 2 * time.Second

// certs holds the certificates in force. They change under running listeners;
// connections keep what they shook hands with.
type certs struct {
	list  []Certificate
	pairs atomic.Pointer[[]*tls.Certificate]
	seen  []stamp // of the files in force, or of those that failed last
}

// stamp tells whether a pair of files is still the one that was read.
type stamp struct {
	cert, key time.Time
	certSize  int64
	keySize   int64
}

// loadCerts reads every pair. An error names the file.
func loadCerts(list []Certificate) (*certs, error) {
	c := &certs{list: list, seen: make([]stamp, len(list))}
	pairs := make([]*tls.Certificate, len(list))
	for i, l := range list {
		c.seen[i] = stampOf(l)
		pair, err := l.load()
		if err != nil {
			return nil, &ConfigError{Element{"certificate", i, "cert"}, err.Error()}
		}
		pairs[i] = pair
	}
	c.pairs.Store(&pairs)
	return c, nil
}

func (c *Certificate) load() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", c.Cert, c.Key, err)
	}
	return &pair, nil
}

func stampOf(c Certificate) stamp {
	var s stamp
	if fi, err := os.Stat(c.Cert); err == nil {
		s.cert, s.certSize = fi.ModTime(), fi.Size()
	}
	if fi, err := os.Stat(c.Key); err == nil {
		s.key, s.keySize = fi.ModTime(), fi.Size()
	}
	return s
}

// refresh reads the pairs whose files have changed. One that cannot be read,
// such as a chain whose key has not been written yet, leaves the old one in
// force and is tried again when the files change again.
func (c *certs) refresh(log *slog.Logger) {
	for i, l := range c.list {
		now := stampOf(l)
		if now == c.seen[i] {
			continue
		}
		c.seen[i] = now
		pair, err := l.load()
		if err != nil {
			log.Warn("certificate not renewed, the old one stays in force", "error", err)
			continue
		}
		pairs := append([]*tls.Certificate(nil), *c.pairs.Load()...)
		pairs[i] = pair
		c.pairs.Store(&pairs)
		log.Info("certificate renewed", "file", l.Cert, "names", pair.Leaf.DNSNames, "until", pair.Leaf.NotAfter)
	}
}

// watch refreshes at intervals until ctx ends.
func (c *certs) watch(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(certWatch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.refresh(log)
		}
	}
}

// pick chooses by the name that the client asked for, the first that fits. A
// client that names no host we know gets the first certificate: mail clients
// connect by all sorts of names, and it is theirs to refuse.
func (c *certs) pick(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	pairs := *c.pairs.Load()
	for _, p := range pairs {
		if hello.SupportsCertificate(p) == nil {
			return p, nil
		}
	}
	unnamed := *hello
	unnamed.ServerName = ""
	for _, p := range pairs {
		if unnamed.SupportsCertificate(p) == nil {
			return p, nil
		}
	}
	if len(pairs) == 0 {
		return nil, errors.New("no certificate")
	}
	return pairs[0], nil
}

// rsaOnly tells whether every handshake will cost an RSA signature, which Go
// makes four times slower than OpenSSL.
func (c *certs) rsaOnly() bool {
	for _, p := range *c.pairs.Load() {
		if _, ok := p.PrivateKey.(*ecdsa.PrivateKey); ok {
			return false
		}
	}
	return len(c.list) > 0
}

// authenticatedSuites are TLS 1.2's suites of authenticated encryption with
// forward secrecy. What else Go would take is CBC, which the Lucky Thirteen
// attack is about. TLS 1.3 has no other kind.
var authenticatedSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// config is what a listener of one protocol shakes hands with. TLS 1.0 and 1.1
// are gone (RFC 8996). A client that offers ALPN must offer alpn, which stops
// cross-protocol attacks; one that offers none is welcome.
func (c *certs) config(alpn string, oldCiphers bool) *tls.Config {
	cfg := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: c.pick,
		NextProtos:     []string{alpn},
	}
	if !oldCiphers {
		cfg.CipherSuites = authenticatedSuites
	}
	return cfg
}
