package integration

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"mailreeve/integration/testbed"
)

// A check is what a monitor does at a port, again and again. Most of them do
// not wait for more than they look at.
type check struct {
	name, listener string
	run            func(p *testbed.Proxy, g testbed.Guess) error
}

var checks = [...]check{
	{"connect and close, as TCP checks do", "mx", func(p *testbed.Proxy, g testbed.Guess) error {
		conn, err := testbed.Dial(g.From, g.Port)
		if err != nil {
			return err
		}
		return conn.Close()
	}},
	{"the banner, then QUIT, as check_smtp does", "mx", says("", "220", "QUIT", "221")},
	{"the banner, EHLO and QUIT, as HAProxy's smtpchk does", "mx", says("", "220", "EHLO monitor.example.test", "250", "QUIT", "221")},
	{"EHLO and QUIT without waiting, as netcat does in scripts", "mx", saysAtOnce("EHLO monitor.example.test\r\nQUIT\r\n")},
	{"the same over TLS", "submissions", saysAtOnce("EHLO monitor.example.test\r\nQUIT\r\n")},
	{"the banner and away", "submission", says("", "220")},
	{"STARTTLS to look at the certificate", "submission", opensAndCloses},
	{"TLS to look at the certificate", "imaps", opensAndCloses},
	{"the greeting, then LOGOUT, as check_imap does", "imap", says("", "* OK", "a LOGOUT", "* BYE")},
	{"the greeting, then QUIT, as check_pop does", "pop3", says("", "+OK", "QUIT", "+OK")},
	{"openssl s_client", "imaps", sClient()},
	{"openssl s_client -starttls smtp", "submission", sClient("-starttls", "smtp")},
}

// says speaks in the clear: a command and how its answer begins, and so on.
func says(dialogue ...string) func(*testbed.Proxy, testbed.Guess) error {
	return func(p *testbed.Proxy, g testbed.Guess) error {
		conn, err := testbed.Dial(g.From, g.Port)
		if err != nil {
			return err
		}
		defer conn.Close()
		for i := 0; i < len(dialogue); i += 2 {
			if dialogue[i] != "" {
				if err := conn.Send("%s", dialogue[i]); err != nil {
					return err
				}
			}
			reply, err := conn.Reply()
			if err != nil || len(reply) < len(dialogue[i+1]) || reply[:len(dialogue[i+1])] != dialogue[i+1] {
				return fmt.Errorf("%q is answered %q, %v", dialogue[i], reply, err)
			}
		}
		return nil
	}
}

// saysAtOnce writes first, and then listens to the end.
func saysAtOnce(text string) func(*testbed.Proxy, testbed.Guess) error {
	return func(p *testbed.Proxy, g testbed.Guess) error {
		conn, err := testbed.Dial(g.From, g.Port)
		if err != nil {
			return err
		}
		defer conn.Close()
		if g.TLS == "implicit" {
			if err := conn.Handshake(testbed.AnyTLS()); err != nil {
				return err
			}
		}
		if _, err := conn.Write([]byte(text)); err != nil {
			return err
		}
		if said, err := conn.Rest(); err != nil || !strings.Contains(said, "\r\n221 ") {
			return fmt.Errorf("%q is answered %q, %v", text, said, err)
		}
		return nil
	}
}

func opensAndCloses(p *testbed.Proxy, g testbed.Guess) error {
	conn, err := g.Open()
	if err != nil {
		return err
	}
	return conn.Close()
}

// sClient is what people type, with nothing to say: it closes once it has
// shown the certificate.
func sClient(args ...string) func(*testbed.Proxy, testbed.Guess) error {
	return func(p *testbed.Proxy, g testbed.Guess) error {
		args := append([]string{"s_client", "-connect", fmt.Sprintf("127.0.0.1:%d", g.Port), "-bind", g.From + ":0"}, args...)
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("openssl: %w\n%s", err, tail(string(out)))
		}
		return nil
	}
}

// With the default rules a monitor that does all of this over and over, a
// thousand times in all, comes nowhere near a limit, nor is it refused once. A
// thousand is one check each 86 seconds for a day.
func TestMonitorsStayFarFromEveryLimit(t *testing.T) {
	t.Parallel()
	const times, atOnce, from = 1000, 4, "127.77.0.1"
	// A fifth of the smallest limit there is, that of wrong passwords.
	const fifth = 10.0 / 5
	cfg := bed.Standard(nil)
	pop3 := mailboxes(nil).Without("pop3s", "sieve")
	cfg.Upstreams, cfg.Listeners = append(cfg.Upstreams, pop3.Upstreams...), append(cfg.Listeners, pop3.Listeners...)
	cfg.Guard = map[string]any{"exempt-local": false}
	p := bed.NewProxy(t, cfg)
	var wait sync.WaitGroup
	for first := range atOnce {
		wait.Go(func() {
			for n := first; n < times; n += atOnce {
				c := checks[n/atOnce%len(checks)]
				if err := c.run(p, p.Guess(c.listener, from, "", "")); err != nil {
					t.Errorf("check %d, %s: %v", n, c.name, err)
					return
				}
			}
		})
	}
	wait.Wait()
	testbed.Eventually(t, "all connections to be over", func() bool {
		return p.Metric(testbed.MetricConnections, nil) == 0
	})
	if points := p.Points(from); points >= fifth {
		t.Errorf("%v points, want less than %v\n%s", points, fifth, p.Admin("why", from))
	}
	if n := p.Metric(testbed.MetricRefused, nil); n > 0 {
		t.Errorf("%v connections were refused", n)
	}
}
