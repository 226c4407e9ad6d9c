package proxy

import (
	"crypto/tls"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

// served tells which certificate a client that asks for name is shown.
func served(t *testing.T, c *certs, name string) string {
	t.Helper()
	hello := &tls.ClientHelloInfo{ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13},
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}}
	pair, err := c.pick(hello)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(pair.Leaf.DNSNames, ",") + "/" + pair.Leaf.SerialNumber.String()
}

func TestCertificateByName(t *testing.T) {
	var list []Certificate
	for _, name := range []string{"one.example.test", "two.example.test"} {
		cert, key := writeCertificate(t, t.TempDir(), name)
		list = append(list, Certificate{Cert: cert, Key: key})
	}
	c, err := loadCerts(list)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"one.example.test": "one.", "two.example.test": "two.",
		"TWO.example.test": "two.", "": "one.", "unknown.example.test": "one.",
	} {
		if got := served(t, c, name); !strings.HasPrefix(got, want) {
			t.Errorf("%q: got %s, want %s…", name, got, want)
		}
	}
}

// A renewed pair is served without a restart; half a renewal, or nonsense,
// leaves the old one in force.
func TestCertificateIsRenewed(t *testing.T) {
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir, "mx.example.test")
	c, err := loadCerts([]Certificate{{Cert: cert, Key: key}})
	if err != nil {
		t.Fatal(err)
	}
	old := served(t, c, "")
	quiet := slog.New(slog.DiscardHandler)
	newCert, newKey := writeCertificate(t, t.TempDir(), "mx.example.test")
	replace := func(to, from string, age time.Duration) {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, to, b)
		stamp := time.Now().Add(age)
		if err := os.Chtimes(to, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	replace(cert, newCert, time.Minute)
	if c.refresh(quiet); served(t, c, "") != old {
		t.Error("a chain without its key came into force")
	}
	replace(key, newKey, time.Minute)
	c.refresh(quiet)
	renewed := served(t, c, "")
	if renewed == old {
		t.Error("the renewed pair is not in force")
	}
	writeFile(t, cert, []byte("nonsense"))
	if c.refresh(quiet); served(t, c, "") != renewed {
		t.Error("nonsense came into force")
	}
}
