package integration

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// A trial is one client at one kind of port. run returns what the client made
// of it, which must be the same at the server and through mailreeve.
type trial struct {
	client, listener string
	tls              string
	run              func(t *testing.T, to target) (string, error)
}

// trials are the clients of the table, in its order.
func trials() []trial {
	var all []trial
	for _, c := range sending {
		all = append(all, trial{c.name, c.listener, c.tls, delivers(c.send, c.login)})
	}
	all = append(all,
		trial{"mutt", "submission", "starttls", delivers(muttSend, true)},
		trial{"nmap smtp-commands", "submission", "starttls", nmap("smtp-commands")},
		trial{"nmap smtp-open-relay", "mx", "starttls", nmap("smtp-open-relay")},
		trial{"sslscan", "mx", "starttls", sslscan("--starttls-smtp")},
		trial{"sslscan", "submission", "starttls", sslscan("--starttls-smtp")},
	)
	for _, c := range fetching {
		all = append(all, trial{c.name, c.listener, c.tls, fetches(c.fetch)})
	}
	return append(all,
		trial{"offlineimap", "imaps", "implicit", fetches(offlineimap)},
		trial{"go-imap", "imaps", "implicit", fetches(goIMAP)},
		trial{"nmap imap-capabilities", "imaps", "implicit", nmap("imap-capabilities")},
		trial{"sslscan", "imaps", "implicit", sslscan()},
		trial{"curl", "pop3", "starttls", fetches(curlPOP3)},
		trial{"python poplib", "pop3", "starttls", fetches(pythonPOP3)},
		trial{"fetchmail", "pop3", "starttls", fetches(fetchmail)},
		trial{"nmap pop3-capabilities", "pop3", "starttls", nmap("pop3-capabilities")},
		trial{"sieve-connect", "sieve", "starttls", sieveConnect},
		trial{"testssl", "imaps", "implicit", testSSL()},
		trial{"testssl", "submission", "starttls", testSSL("--starttls", "smtp")},
	)
}

// TestClientsTable is `make clients`: every client straight at the servers and
// through mailreeve, side by side, in the file that MAILREEVE_CLIENTS names.
func TestClientsTable(t *testing.T) {
	path := os.Getenv("MAILREEVE_CLIENTS")
	if path == "" {
		t.Skip("run by make clients only")
	}
	if err := testbed.InstallClients(); err != nil {
		t.Fatal(err)
	}
	cfg := bed.Standard(nil)
	more := mailboxes(nil)
	cfg.Upstreams = append(cfg.Upstreams, more.Upstreams...)
	cfg.Listeners = append(cfg.Listeners, more.Listeners...)
	p := bed.NewProxy(t, cfg)
	servers := map[string]int{
		"mx": bed.Postfix.MX, "submission": bed.Postfix.Submission, "imap": bed.Dovecot.IMAP,
		"imaps": bed.Dovecot.IMAPS, "pop3": bed.Dovecot.POP3, "sieve": bed.Dovecot.Sieve,
	}
	var table strings.Builder
	fmt.Fprintf(&table, clientsHead, time.Now().UTC().Format(time.DateOnly), versions())
	for i, c := range trials() {
		through := outcome(t, c, target{p.Port(c.listener), c.tls, fmt.Sprintf("127.76.0.%d", i+1), bed.Users[i%20]})
		straight, same := "no such port", ""
		if servers[c.listener] != 0 {
			straight = outcome(t, c, target{servers[c.listener], c.tls, fmt.Sprintf("127.76.1.%d", i+1), bed.Users[20+i%20]})
			same = "**no**"
			if straight == through {
				same = "yes"
			}
		}
		row := fmt.Sprintf("| %s | %s, %s | %s | %s | %s |", c.client, c.listener, c.tls, cell(straight), cell(through), same)
		fmt.Println(row)
		fmt.Fprintln(&table, row)
	}
	if err := os.WriteFile(path, []byte(table.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

const clientsHead = `# Clients

Real clients straight at Postfix and Dovecot, and at the same servers through
mailreeve, by ` + "`make clients`" + `, which writes this file. "Same" compares what is
in the two columns: whether the message arrived, or what the tool found. The
two must differ in TLS, which is mailreeve's own (1.2 and 1.3 only, and for
people's programs no CBC), in what a
server offers in the clear that mailreeve hides (logins before TLS: Dovecot takes
a client on loopback for secure), and in the text behind HELP, which mailreeve
answers itself before TLS. sslscan's findings are graded as SSL Labs' rating
guide (2009r) does, but for the certificate, which is the tests' own.

Run on %s with %s.

| client | port | straight | through mailreeve | same |
|---|---|---|---|---|
`

// versions tells what was tested with.
func versions() string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Package} ${Version}, ", "postfix", "dovecot-core", "curl", "swaks",
		"msmtp", "isync", "mutt", "offlineimap3", "fetchmail", "sieve-connect", "nmap", "sslscan", "testssl.sh").Output()
	if err != nil && len(out) == 0 {
		return "unknown versions"
	}
	return strings.TrimSuffix(string(out), ", ")
}

// cell makes text fit a table.
func cell(text string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "|", `\|`)), " ")
}

func outcome(t *testing.T, c trial, to target) string {
	name := strings.Fields(c.client)[0]
	if name != "python" && name != "go-imap" {
		if _, err := exec.LookPath(name); err != nil {
			return name + " is not installed"
		}
	}
	result, err := c.run(t, to)
	if err != nil {
		t.Errorf("%s at %s: %v", c.client, c.listener, err)
		return "error: " + tail(err.Error())
	}
	return result
}

// delivers tells whether a message that is sent arrives.
func delivers(send sender, login bool) func(*testing.T, target) (string, error) {
	return func(t *testing.T, to target) (string, error) {
		if !login {
			to.user = testbed.User{}
		}
		subject := token(t)
		if err := send(t, to, bed.Alice.Login, message(subject, "hello")); err != nil {
			return "", err
		}
		bed.AwaitMail(t, bed.Alice.Login, subject)
		return "delivered", nil
	}
}

// fetches tells whether a message that is there comes.
func fetches(fetch fetcher) func(*testing.T, target) (string, error) {
	return func(t *testing.T, from target) (string, error) {
		subject := token(t)
		bed.Put(t, from.user.Login, message(subject, "fetch me"))
		text, err := fetch(t, from)
		if err != nil {
			return "", err
		}
		if !strings.Contains(string(text), "fetch me") {
			return "", fmt.Errorf("fetched %q, which is not the message", tail(string(text)))
		}
		return "fetched", nil
	}
}
