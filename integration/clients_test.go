package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// A target is a port that a client is pointed at.
type target struct {
	port int
	tls  string // "none", "starttls", "implicit"
	from string // the client's address
	user testbed.User
}

// clientTime is how long a client program may take. Twenty mebibytes under the
// race detector are the longest.
const clientTime = 2 * time.Minute

// runClient runs a client program to its end and returns what it printed.
func runClient(stdin []byte, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), clientTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s\n%s", name, err, tail(out.String()), tail(errs.String()))
	}
	return out.Bytes(), nil
}

func tail(s string) string {
	return s[max(0, len(s)-2000):]
}

// A sender sends a message to a recipient; with t.user set it logs in.
type sender func(t *testing.T, to target, rcpt string, message []byte) error

// envelopeFrom is the sender of the tests' messages.
const envelopeFrom = "sender@example.org"

func swaks(mechanism string) sender {
	return func(t *testing.T, to target, rcpt string, message []byte) error {
		args := []string{"--server", fmt.Sprintf("127.0.0.1:%d", to.port), "--local-interface", to.from,
			"--ehlo", "client.example.test", "--from", envelopeFrom, "--to", rcpt, "--data", "-"}
		switch to.tls {
		case "starttls":
			args = append(args, "--tls")
		case "implicit":
			args = append(args, "--tls-on-connect")
		}
		if mechanism != "" {
			args = append(args, "--auth", mechanism, "--auth-user", to.user.Login, "--auth-password", to.user.Password)
		}
		_, err := runClient(message, "swaks", args...)
		return err
	}
}

func curlSend(t *testing.T, to target, rcpt string, message []byte) error {
	scheme := "smtp"
	if to.tls == "implicit" {
		scheme = "smtps"
	}
	args := append(curlArgs(to), fmt.Sprintf("%s://127.0.0.1:%d/client.example.test", scheme, to.port),
		"--mail-from", envelopeFrom, "--mail-rcpt", rcpt, "--upload-file", "-")
	_, err := runClient(message, "curl", args...)
	return err
}

func curlArgs(to target) []string {
	args := []string{"--silent", "--show-error", "--interface", to.from, "--cacert", bed.CA.File}
	if to.tls == "starttls" {
		args = append(args, "--ssl-reqd")
	}
	if to.user.Login != "" {
		args = append(args, "--user", to.user.Login+":"+to.user.Password)
	}
	return args
}

func msmtp(t *testing.T, to target, rcpt string, message []byte) error {
	startTLS := "off"
	if to.tls == "starttls" {
		startTLS = "on"
	}
	args := []string{"--host=127.0.0.1", fmt.Sprintf("--port=%d", to.port), "--source-ip=" + to.from,
		"--tls=on", "--tls-starttls=" + startTLS, "--tls-trust-file=" + bed.CA.File,
		"--auth=on", "--user=" + to.user.Login, "--passwordeval=echo " + to.user.Password,
		"--from=" + envelopeFrom, rcpt}
	_, err := runClient(message, "msmtp", args...)
	return err
}

func pythonSend(t *testing.T, to target, rcpt string, message []byte) error {
	args := []string{"testdata/smtp_send.py", fmt.Sprint(to.port), to.tls, to.from, bed.CA.File, envelopeFrom, rcpt}
	if to.user.Login != "" {
		args = append(args, to.user.Login, to.user.Password)
	}
	_, err := runClient(message, "python3", args...)
	return err
}

// A fetcher returns what is in the user's INBOX.
type fetcher func(t *testing.T, from target) ([]byte, error)

func curlFetch(t *testing.T, from target) ([]byte, error) {
	scheme := "imap"
	if from.tls == "implicit" {
		scheme = "imaps"
	}
	args := append(curlArgs(from), fmt.Sprintf("%s://127.0.0.1:%d/INBOX;MAILINDEX=1", scheme, from.port))
	return runClient(nil, "curl", args...)
}

func pythonFetch(t *testing.T, from target) ([]byte, error) {
	return runClient(nil, "python3", "testdata/imap_fetch.py", fmt.Sprint(from.port), from.tls, from.from,
		bed.CA.File, from.user.Login, from.user.Password)
}

const mbsyncConfig = `IMAPAccount a
Host localhost
Port %d
User %s
Pass %s
SSLType %s
AuthMechs LOGIN
CertificateFile %s

IMAPStore far
Account a

MaildirStore near
Path %[6]s/
Inbox %[6]s/INBOX
SubFolders Verbatim

Channel c
Far :far:
Near :near:
Patterns INBOX
Create Near
Sync Pull
SyncState *
`

func mbsync(t *testing.T, from target) ([]byte, error) {
	dir := t.TempDir()
	kind := "STARTTLS"
	if from.tls == "implicit" {
		kind = "IMAPS"
	}
	config := fmt.Sprintf(mbsyncConfig, from.port, from.user.Login, from.user.Password, kind, bed.CA.File, dir)
	path := filepath.Join(dir, "mbsyncrc")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	if _, err := runClient(nil, "mbsync", "--config", path, "c"); err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(dir, "INBOX/*/*"))
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("mbsync fetched nothing: %v", err)
	}
	var all []byte
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		all = append(all, text...)
	}
	return all, nil
}

// token makes a text that is in one message only.
func token(t *testing.T) string {
	return fmt.Sprintf("%s-%d", strings.NewReplacer("/", "-", " ", "-").Replace(t.Name()), time.Now().UnixNano())
}

func message(subject, body string) []byte {
	return []byte("From: " + envelopeFrom + "\r\nSubject: " + subject + "\r\n\r\n" + body + "\r\n")
}
