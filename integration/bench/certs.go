package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// The certificates of a run, by the base of their names: base.pem, base.key,
// and base.both with the key behind the certificate, as HAProxy wants it. Each
// is for base.example.test.
const (
	certECDSA = "ecdsa"
	certRSA   = "rsa"
)

// makeCertificates writes a P-256 and an RSA-2048 certificate to dir.
func makeCertificates(dir string) error {
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if err := writeCertificate(filepath.Join(dir, certECDSA), curve); err != nil {
		return err
	}
	modulus, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	return writeCertificate(filepath.Join(dir, certRSA), modulus)
}

func writeCertificate(base string, key crypto.Signer) error {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: filepath.Base(base) + ".example.test"},
		DNSNames:     []string{filepath.Base(base) + ".example.test"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(48 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make %s: %w", base, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("make %s: %w", base, err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for _, file := range []struct {
		ext  string
		text []byte
	}{
		{".pem", certPEM}, {".key", keyPEM}, {".both", append(certPEM[:len(certPEM):len(certPEM)], keyPEM...)},
	} {
		// Dovecot and nginx read keys as root; these guard nothing.
		if err := os.WriteFile(base+file.ext, file.text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
