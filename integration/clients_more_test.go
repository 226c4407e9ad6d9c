package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailreeve/integration/testbed"
)

const muttConfig = `set from=%s
set smtp_url="smtp://%s@localhost:%d"
set smtp_pass="%s"
set ssl_starttls=yes
set ssl_force_tls=yes
set certificate_file=%s
set ssl_usesystemcerts=no
set copy=no
set hostname=client.example.test
`

func muttSend(t *testing.T, to target, rcpt string, message []byte) error {
	rc := filepath.Join(t.TempDir(), "muttrc")
	text := fmt.Sprintf(muttConfig, envelopeFrom, to.user.Login, to.port, to.user.Password, bed.CA.File)
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		return err
	}
	subject := strings.TrimSpace(strings.SplitN(strings.SplitN(string(message), "Subject: ", 2)[1], "\r\n", 2)[0])
	_, err := runClient([]byte("hello\n"), "mutt", "-n", "-F", rc, "-s", subject, rcpt)
	return err
}

const offlineimapConfig = `[general]
accounts = a
metadata = %[1]s/meta
ui = quiet
[Account a]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = %[1]s/mail
[Repository far]
type = IMAP
remotehost = localhost
remoteport = %[2]d
remoteuser = %[3]s
remotepass = %[4]s
ssl = yes
sslcacertfile = %[5]s
folderfilter = lambda name: name == 'INBOX'
readonly = true
`

func offlineimap(t *testing.T, from target) ([]byte, error) {
	dir := t.TempDir()
	rc := filepath.Join(dir, "rc")
	text := fmt.Sprintf(offlineimapConfig, dir, from.port, from.user.Login, from.user.Password, bed.CA.File)
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if _, err := runClient(nil, "offlineimap", "-c", rc, "-o"); err != nil {
		return nil, err
	}
	return allFiles(filepath.Join(dir, "mail/INBOX/*/*"))
}

func allFiles(pattern string) ([]byte, error) {
	names, err := filepath.Glob(pattern)
	var all []byte
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		all = append(all, text...)
	}
	return all, err
}

func goIMAP(t *testing.T, from target) ([]byte, error) {
	conn, err := testbed.Dial(from.from, from.port)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.Handshake(testbed.AnyTLS()); err != nil {
		return nil, err
	}
	client := imapclient.New(conn.Conn, nil)
	if err := client.Login(from.user.Login, from.user.Password).Wait(); err != nil {
		return nil, err
	}
	if _, err := client.Select("INBOX", nil).Wait(); err != nil {
		return nil, err
	}
	section := &imap.FetchItemBodySection{Peek: true}
	messages, err := client.Fetch(imap.SeqSet{{Start: 1}}, &imap.FetchOptions{
		BodySection: []*imap.FetchItemBodySection{section},
	}).Collect()
	if err != nil {
		return nil, err
	}
	var all []byte
	for _, m := range messages {
		all = append(all, m.FindBodySection(section)...)
	}
	return all, client.Logout().Wait()
}

func curlPOP3(t *testing.T, from target) ([]byte, error) {
	return runClient(nil, "curl", append(curlArgs(from), fmt.Sprintf("pop3://127.0.0.1:%d/1", from.port))...)
}

func pythonPOP3(t *testing.T, from target) ([]byte, error) {
	return runClient(nil, "python3", "testdata/pop3_fetch.py", fmt.Sprint(from.port), from.from, bed.CA.File,
		from.user.Login, from.user.Password)
}

func fetchmail(t *testing.T, from target) ([]byte, error) {
	dir := t.TempDir()
	rc := filepath.Join(dir, "rc")
	text := fmt.Sprintf("poll localhost protocol pop3 port %d user %q password %q sslproto TLS1.2+ sslcertfile %q keep mda %q\n",
		from.port, from.user.Login, from.user.Password, bed.CA.File, "/bin/sh -c 'cat >> "+dir+"/mail'")
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("fetchmail", "--fetchmailrc", rc, "--nodetach", "--nosyslog", "--idfile", dir+"/ids", "--pidfile", dir+"/pid")
	cmd.Env = append(os.Environ(), "FETCHMAILHOME="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("fetchmail: %w\n%s", err, tail(string(out)))
	}
	return os.ReadFile(dir + "/mail")
}

// sieveConnect puts a script up and lists what is there.
func sieveConnect(t *testing.T, to target) (string, error) {
	dir := t.TempDir()
	script := filepath.Join(dir, "s.sieve")
	if err := os.WriteFile(script, []byte("keep;\n"), 0o600); err != nil {
		return "", err
	}
	common := []string{"--nosslverify", "--server", "localhost", "--port", fmt.Sprint(to.port), "--user", to.user.Login, "--passwordfd", "0"}
	password := []byte(to.user.Password + "\n")
	upload := append(slices.Clone(common), "--localsieve", script, "--remotesieve", "s", "--upload")
	if _, err := runClient(password, "sieve-connect", upload...); err != nil {
		return "", err
	}
	out, err := runClient(password, "sieve-connect", append(common, "--list")...)
	return "lists " + cell(string(out)), err
}

// nmap runs a script and returns the words that it found, in no order: its
// scripts print what they keep in tables.
func nmap(script string) func(*testing.T, target) (string, error) {
	return func(t *testing.T, to target) (string, error) {
		out, err := runClient(nil, "nmap", "-Pn", "-n", "-sT", "-p", fmt.Sprint(to.port), "--script", "+"+script, "127.0.0.1")
		if err != nil {
			return "", err
		}
		var found []string
		for line := range strings.Lines(string(out)) {
			if rest, ok := strings.CutPrefix(line, "|"); ok {
				found = append(found, strings.FieldsFunc(strings.Trim(rest, "_ \n"), func(r rune) bool {
					return r == ' ' || r == ','
				})...)
			}
		}
		slices.Sort(found)
		return strings.Join(found, " "), nil
	}
}
