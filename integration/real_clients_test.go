package integration

import (
	"fmt"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// sending are the clients that send, at every port and in every TLS mode.
var sending = [...]struct {
	name     string
	listener string
	tls      string
	login    bool
	send     sender
}{
	{"swaks", "mx", "none", false, swaks("")},
	{"swaks", "mx", "starttls", false, swaks("")},
	{"swaks PLAIN", "submission", "starttls", true, swaks("PLAIN")},
	{"swaks LOGIN", "submission", "starttls", true, swaks("LOGIN")},
	{"swaks CRAM-MD5", "submissions", "implicit", true, swaks("CRAM-MD5")},
	{"curl", "mx", "none", false, curlSend},
	{"curl", "mx", "starttls", false, curlSend},
	{"curl", "submission", "starttls", true, curlSend},
	{"curl", "submissions", "implicit", true, curlSend},
	{"msmtp", "submission", "starttls", true, msmtp},
	{"msmtp", "submissions", "implicit", true, msmtp},
	{"python", "mx", "none", false, pythonSend},
	{"python", "mx", "starttls", false, pythonSend},
	{"python", "submission", "starttls", true, pythonSend},
	{"python", "submissions", "implicit", true, pythonSend},
}

// fetching are the clients that fetch. mbsync cannot choose its address.
var fetching = [...]struct {
	name     string
	listener string
	tls      string
	fetch    fetcher
	address  bool
}{
	{"curl", "imap", "starttls", curlFetch, true},
	{"curl", "imaps", "implicit", curlFetch, true},
	{"mbsync", "imap", "starttls", mbsync, false},
	{"mbsync", "imaps", "implicit", mbsync, false},
	{"python", "imap", "starttls", pythonFetch, true},
	{"python", "imaps", "implicit", pythonFetch, true},
}

// Real clients send and fetch mail through every port in every TLS mode, and
// the servers' logs name the clients' addresses, not ours.
func TestRealClientsSendAndFetch(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, bed.Standard(nil))
	runClients(t, "127.20.0", p.Port)
}

// The same clients at the servers themselves: what fails here is not ours.
func TestRealClientsWithoutProxy(t *testing.T) {
	t.Parallel()
	ports := map[string]int{
		"mx": bed.Postfix.MX, "submission": bed.Postfix.Submission,
		"imap": bed.Dovecot.IMAP, "imaps": bed.Dovecot.IMAPS,
	}
	runClients(t, "127.20.1", func(listener string) int { return ports[listener] })
}

// runClients runs all clients whose listener has a port. Each has an address
// of its own, below the given network.
func runClients(t *testing.T, network string, port func(string) int) {
	for i, c := range sending {
		to := target{port(c.listener), c.tls, fmt.Sprintf("%s.%d", network, i+1), testbed.User{}}
		if c.login {
			to.user = bed.Bob
		}
		t.Run(strings.Join([]string{c.name, c.listener, c.tls}, " "), func(t *testing.T) {
			if to.port == 0 {
				t.Skip("the servers have no such port of their own")
			}
			subject := token(t)
			if err := c.send(t, to, bed.Alice.Login, message(subject, "hello")); err != nil {
				t.Fatal(err)
			}
			bed.AwaitMail(t, bed.Alice.Login, subject)
			bed.Postfix.Log.Await(t, `client=unknown\[`+strings.ReplaceAll(to.from, ".", `\.`)+`\]`)
		})
	}
	for i, c := range fetching {
		from := target{port(c.listener), c.tls, fmt.Sprintf("%s.%d", network, 100+i), bed.Users[40+i]}
		t.Run(strings.Join([]string{c.name, c.listener, c.tls}, " "), func(t *testing.T) {
			subject := token(t)
			bed.Put(t, from.user.Login, message(subject, "fetch me"))
			text, err := c.fetch(t, from)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), "fetch me") {
				t.Errorf("fetched %q, which is not the message", tail(string(text)))
			}
			if c.address {
				bed.Dovecot.Log.Await(t, `imap-login: Info: Login: .*rip=`+strings.ReplaceAll(from.from, ".", `\.`)+`,`)
			}
		})
	}
}
