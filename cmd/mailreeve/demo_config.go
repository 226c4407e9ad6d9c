package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"text/template"
	"time"
)

// demoConfig is the demo's configuration file.
const demoConfig = `# The configuration of mailreeve's demo. Change it and try
#   mailreeve reload --config {{.Dir}}/config.toml
hostname = "mx.example.test"

[admin]
socket = "{{.Dir}}/admin.sock"
metrics = "{{.Metrics}}"

[store]
path = "{{.Dir}}/store"

[[certificate]]
cert = "{{.Dir}}/cert.pem"
key = "{{.Dir}}/key.pem"
{{range .Upstreams}}
[[upstream]]
name = "{{.Name}}"
addresses = ["{{.Addr}}"]
proxy-protocol = "v2"
{{end}}{{range .Listeners}}
[[listener]]
name = "{{.Name}}"
address = "{{.Address}}"
protocol = "{{.Protocol}}"
tls = "{{.TLS}}"
upstream = "{{.Upstream}}"
{{end}}
[guard]
authentication = "{{.Limit}}"
exempt-local = false     # so that you can attack it from this machine

[timeouts]
drain = "1s"
`

// A demoListener is a port of the demo.
type demoListener struct {
	Name, Address, Protocol, TLS, Upstream string
}

// demoListeners are the standard ports, plus 10000.
func demoListeners() []demoListener {
	return []demoListener{
		{"mx", "127.0.0.1:10025", "smtp", "starttls", "mx"},
		{"submissions", "127.0.0.1:10465", "submission", "implicit", "submission"},
		{"submission", "127.0.0.1:10587", "submission", "starttls", "submission"},
		{"imap", "127.0.0.1:10143", "imap", "starttls", "imap"},
		{"imaps", "127.0.0.1:10993", "imap", "implicit", "imap"},
		{"pop3", "127.0.0.1:10110", "pop3", "starttls", "pop3"},
		{"pop3s", "127.0.0.1:10995", "pop3", "implicit", "pop3"},
		{"sieve", "127.0.0.1:14190", "managesieve", "starttls", "sieve"},
	}
}

// demoGuesses is how many different wrong passwords the demo lets through.
const demoGuesses = 5

func (d *demo) writeConfig() error {
	text, err := template.New("config.toml").Parse(demoConfig)
	if err != nil {
		return err
	}
	f, err := os.Create(d.config())
	if err != nil {
		return err
	}
	type upstream struct {
		Name string
		Addr net.Addr
	}
	err = text.Execute(f, map[string]any{
		"Dir":     d.dir,
		"Metrics": defaultMetrics,
		"Upstreams": []upstream{
			{"mx", d.server.mx.Addr()},
			{"submission", d.server.submission.Addr()},
			{"imap", d.server.imap.Addr()},
			{"pop3", d.server.pop3.Addr()},
			{"sieve", d.server.sieve.Addr()},
		},
		"Listeners": demoListeners(),
		"Limit":     fmt.Sprintf("%d/1h", demoGuesses),
	})
	return errors.Join(err, f.Close())
}

// writeSelfSigned makes a certificate for the demo's names, valid for a day.
func writeSelfSigned(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "mailreeve demo"},
		DNSNames:     []string{"localhost", "mx.example.test"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		writePEM(filepath.Join(dir, "cert.pem"), "CERTIFICATE", cert),
		writePEM(filepath.Join(dir, "key.pem"), "PRIVATE KEY", der),
	)
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
