package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
)

// mailreeveConfig leaves everything at its default but for what the benchmark
// is about: all clients are on loopback, which is else exempt from every rule;
// 50 of them share an address at most, and thousands a network; nobody logs in or
// speaks for a while in the rows about idle connections.
const mailreeveConfig = `hostname = "mx.example.test"
[admin]
socket = "@DIR@/admin.sock"
metrics = "@METRICS@"
[store]
path = "@STORE@"
[guard]
exempt-local = false
[enforce]
kernel-filter = "@FILTER@"
[timeouts]
first-command = "10m"
login = "10m"
[limits]
connections = 9500
connections-per-network = 9500
[[certificate]]
cert = "@ECDSA@.pem"
key = "@ECDSA@.key"
[[certificate]]
cert = "@RSA@.pem"
key = "@RSA@.key"
[[upstream]]
name = "smtp"
addresses = ["127.0.0.1:@B_SMTP@"]
[[upstream]]
name = "imap"
addresses = ["127.0.0.1:@B_IMAP@"]
family = "dovecot"
[[listener]]
name = "smtp"
address = "127.0.0.1:@SMTP@"
protocol = "smtp"
tls = "none"
upstream = "smtp"
[[listener]]
name = "smtps"
address = "127.0.0.1:@SMTPS@"
protocol = "smtp"
tls = "implicit"
upstream = "smtp"
[[listener]]
name = "imap"
address = "127.0.0.1:@IMAP@"
protocol = "imap"
tls = "none"
plaintext-auth = "yes"
upstream = "imap"
[[listener]]
name = "imaps"
address = "127.0.0.1:@IMAPS@"
protocol = "imap"
tls = "implicit"
upstream = "imap"
[[listener]]
name = "imapsrsa"
address = "127.0.0.1:@IMAPSRSA@"
protocol = "imap"
tls = "implicit"
upstream = "imap"
`

// startMailreeve runs the program under test.
func (b *bench) startMailreeve(s *setup) (*process, error) { return serveMailreeve(b.binary, s) }

// startOther runs the build to compare with.
func (b *bench) startOther(s *setup) (*process, error) { return serveMailreeve(b.against, s) }

func serveMailreeve(binary string, s *setup) (*process, error) {
	if s.store == "" {
		s.store = s.file("store")
	}
	filter := "off"
	if s.kernelFilter {
		filter = "required"
	}
	text := strings.ReplaceAll(mailreeveConfig, "@FILTER@", filter)
	if err := s.write("config.toml", text); err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, "serve", "--config", s.file("config.toml"))
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", s.cores))
	p, err := launch(s.file("log"), cmd)
	if err != nil {
		return nil, err
	}
	if err := p.awaitUp(func() error { return ready(s.metrics()) }); err != nil {
		p.stop()
		return nil, err
	}
	return p, banForBench(binary, s)
}

// banForBench bans the clients that the rows about refusing use.
func banForBench(binary string, s *setup) error {
	if s.store != s.file("store") {
		return nil // A store that was filled for a row.
	}
	for n := range bannedClients {
		cmd := exec.Command(binary, "ban", bannedClient(n).String(), "--config", s.file("config.toml"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("mailreeve ban: %w\n%s", err, out)
		}
	}
	return nil
}

// ready asks mailreeve whether it serves.
func ready(metrics string) error {
	resp, err := http.Get("http://" + metrics + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz says %s", resp.Status)
	}
	return nil
}

// buildMailreeve builds the program as it is released.
func buildMailreeve(to string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-o", to, "mailreeve/cmd/mailreeve")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}
