package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sslscan tells protocol versions and suites, and the grade that follows.
func sslscan(args ...string) func(*testing.T, target) (string, error) {
	return func(t *testing.T, to target) (string, error) {
		out, err := runClient(nil, "sslscan", append(args, "--no-colour", fmt.Sprintf("127.0.0.1:%d", to.port))...)
		if err != nil {
			return "", err
		}
		return gradeTLS(string(out)), nil
	}
}

var (
	scanProtocol = regexp.MustCompile(`(?m)^(TLSv1\.[0-3]|SSLv[23]) +enabled`)
	scanSuite    = regexp.MustCompile(`(?m)^(?:Preferred|Accepted) +(\S+) +(\d+) bits +(\S+)`)
)

// gradeTLS reads sslscan's output, and grades it as SSL Labs' rating guide
// (2009r) does: 30 % for the protocols, 30 for the key exchange, 40 for the
// ciphers, and then whatever caps the grade. The certificate is not looked at.
func gradeTLS(scan string) string {
	protocolScore := map[string]float64{"SSLv2": 0, "SSLv3": 80, "TLSv1.0": 90, "TLSv1.1": 95, "TLSv1.2": 100, "TLSv1.3": 100}
	worst, best := 100.0, 0.0
	var protocols []string
	for _, m := range scanProtocol.FindAllStringSubmatch(scan, -1) {
		worst, best = min(worst, protocolScore[m[1]]), max(best, protocolScore[m[1]])
		protocols = append(protocols, m[1])
	}
	suites := scanSuite.FindAllStringSubmatch(scan, -1)
	if len(suites) == 0 {
		return "no TLS"
	}
	weakest, strongest := 1<<10, 0
	cbc, static := 0, 0
	for _, m := range suites {
		bits, _ := strconv.Atoi(m[2])
		weakest, strongest = min(weakest, bits), max(strongest, bits)
		if m[1] != "TLSv1.3" && !strings.Contains(m[3], "GCM") && !strings.Contains(m[3], "POLY1305") && !strings.Contains(m[3], "CCM") {
			cbc++
		}
		if m[1] != "TLSv1.3" && !strings.Contains(m[3], "DHE-") {
			static++
		}
	}
	// X25519 and P-256 are worth 3072 bits of RSA: 90.
	score := 0.3*(worst+best)/2 + 0.3*90 + 0.4*(cipherScore(weakest)+cipherScore(strongest))/2
	grade := "A"
	switch {
	case worst < 80 || weakest < 112:
		grade = "F"
	case score < 65 || weakest < 128:
		grade = "C"
	case score < 80 || worst < 100 || static > 0 || cbc == len(suites):
		grade = "B"
	}
	return fmt.Sprintf("grade %s: %s, %d suites, %d of them CBC, %d without forward secrecy", grade, strings.Join(protocols, " "), len(suites), cbc, static)
}

func cipherScore(bits int) float64 {
	switch {
	case bits >= 256:
		return 100
	case bits >= 128:
		return 80
	}
	return 20
}

func TestGradeTLS(t *testing.T) {
	const good = "TLSv1.1   disabled\nTLSv1.2   enabled\nTLSv1.3   enabled\n" +
		"Preferred TLSv1.3  128 bits  TLS_AES_128_GCM_SHA256        Curve 25519 DHE 253\n" +
		"Accepted  TLSv1.2  256 bits  ECDHE-ECDSA-AES256-GCM-SHA384 Curve 25519 DHE 253\n"
	for _, c := range []struct{ scan, want string }{
		{good, "grade A: TLSv1.2 TLSv1.3, 2 suites, 0 of them CBC, 0 without forward secrecy"},
		{good + "Accepted  TLSv1.2  128 bits  ECDHE-ECDSA-AES128-SHA Curve 25519 DHE 253\n", "grade A: TLSv1.2 TLSv1.3, 3 suites, 1 of them CBC"},
		{good + "TLSv1.0   enabled\n", "grade B: "},
		{good + "Accepted  TLSv1.2  128 bits  AES128-GCM-SHA256\n", "grade B: "},
		{good + "Accepted  TLSv1.2  112 bits  DHE-RSA-DES-CBC3-SHA\n", "grade C: "},
		{good + "SSLv2     enabled\n", "grade F: "},
		{"TLSv1.2   disabled\n", "no TLS"},
	} {
		if got := gradeTLS(c.scan); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s\n%s; want %s", c.scan, got, c.want)
		}
	}
}

// testSSL counts what testssl.sh finds wrong with protocols, ciphers and known
// weaknesses, and gives the first.
func testSSL(args ...string) func(*testing.T, target) (string, error) {
	return func(t *testing.T, to target) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		args := append([]string{"--quiet", "--color", "0", "--warnings", "off", "--fast", "--ip", "127.0.0.1",
			"--add-ca", bed.CA.File, "-p", "-s", "-U"}, args...)
		cmd := exec.CommandContext(ctx, "testssl", append(args, fmt.Sprintf("localhost:%d", to.port))...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, io.Discard
		err := cmd.Run() // its exit code counts findings
		if out.Len() == 0 {
			return "", err
		}
		bad := 0
		var first string
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "NOT ok") || strings.Contains(line, "VULNERABLE") && !strings.Contains(line, "not vulnerable") {
				bad++
				if first == "" {
					first = ": " + cell(line)
				}
			}
		}
		return fmt.Sprintf("findings: %d%s", bad, first), nil
	}
}
