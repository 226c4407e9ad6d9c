package integration

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// mailboxes is mailreeve in front of the real Dovecot's POP3 and ManageSieve.
func mailboxes(rules map[string]any) testbed.Config {
	address := func(port int) []string { return []string{fmt.Sprintf("127.0.0.1:%d", port)} }
	return testbed.Config{
		Hostname: "imap.example.test",
		Guard:    testbed.Rules(rules),
		Upstreams: []testbed.Upstream{
			{Name: "dovecot-pop3", Addresses: address(bed.Dovecot.POP3Proxy)},
			{Name: "dovecot-sieve", Addresses: address(bed.Dovecot.SieveProxy)},
		},
		Listeners: []testbed.Listener{
			{Name: "pop3", Protocol: "pop3", TLS: "starttls", Upstream: "dovecot-pop3"},
			{Name: "pop3s", Protocol: "pop3", TLS: "implicit", Upstream: "dovecot-pop3"},
			{Name: "sieve", Protocol: "managesieve", TLS: "starttls", Upstream: "dovecot-sieve"},
		},
	}
}

var mailboxListeners = [...]string{"pop3", "pop3s", "sieve"}

// The right password passes and costs nothing, a wrong one is Dovecot's to
// refuse and costs one point, and Dovecot knows whose it was.
func TestPOP3AndManageSieveLogins(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, mailboxes(map[string]any{"authentication": "100/1h"}))
	for i, listener := range mailboxListeners {
		t.Run(listener, func(t *testing.T) {
			from, user := fmt.Sprintf("127.70.0.%d", i+1), bed.Users[30+i]
			mustLogin(t, p.Guess(listener, from, user.Login, user.Password))
			if points := p.Points(from); points != 0 {
				t.Errorf("the right password costs %v points", points)
			}
			wrong := p.Guess(listener, from, user.Login, bed.Secrets.New("mailbox-"+listener))
			if answer, text, _ := wrong.Try(); answer != testbed.Wrong {
				t.Errorf("a wrong password is answered %v: %q", answer, text)
			}
			if points := p.Points(from); points != 1 {
				t.Errorf("a wrong password costs %v points, want 1", points)
			}
			bed.Dovecot.Log.Await(t, failedLogin(from))
			bed.Dovecot.Log.Await(t, `(pop3|managesieve)-login: Info: Login: .*rip=`+strings.ReplaceAll(from, ".", `\.`)+`,`)
		})
	}
}

// The guess that reaches the limit is not answered: the connection is cut, as
// are the address's others, and Dovecot sees no further guess.
func TestPOP3AndManageSieveBansCut(t *testing.T) {
	t.Parallel()
	const limit = 4
	p := bed.NewProxy(t, mailboxes(map[string]any{"authentication": fmt.Sprintf("%d/1h", limit)}))
	for i, listener := range mailboxListeners {
		t.Run(listener, func(t *testing.T) {
			guesser, user := fmt.Sprintf("127.70.1.%d", i+1), bed.Users[33+i]
			bystander := mustOpen(t, p.Guess(listener, guesser, "", ""))
			for n := range limit {
				g := p.Guess(listener, guesser, user.Login, bed.Secrets.New(fmt.Sprintf("cut-%s-%d", listener, n)))
				answer, text, _ := g.Try()
				if last := n == limit-1; last != (answer != testbed.Wrong) {
					t.Errorf("guess %d of %d is answered %v: %q", n+1, limit, answer, text)
				}
			}
			mustBan(t, p, guesser)
			if _, err := bystander.Rest(); err != nil {
				t.Errorf("the address's other connection: %v", err)
			}
			if !dropped(t, guesser, p.Port(listener)) {
				t.Error("the next connection was not dropped")
			}
			if n := bed.Dovecot.FlushedLog(t).Count(failedLogin(guesser)); n > limit {
				t.Errorf("Dovecot saw %d guesses, want at most %d", n, limit)
			}
		})
	}
}

// Without TLS no password is taken, nor does it reach Dovecot or cost a point.
func TestPOP3AndManageSieveTakeNoPasswordInTheClear(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, mailboxes(map[string]any{"authentication": "100/1h"}))
	for i, listener := range []string{"pop3", "sieve"} {
		from, seen := fmt.Sprintf("127.70.2.%d", i+1), bed.Dovecot.FlushedLog(t).Count(`rip=127\.70\.2\.`)
		g := p.Guess(listener, from, bed.Bob.Login, bed.Bob.Password)
		g.TLS = "none"
		if answer, text, conn := g.Try(); answer == testbed.Accepted {
			conn.Close()
			t.Errorf("%s: accepted in the clear: %q", listener, text)
		}
		if points := p.Points(from); points != 0 {
			t.Errorf("%s: %v points, want none", listener, points)
		}
		if n := bed.Dovecot.FlushedLog(t).Count(`rip=127\.70\.2\.`); n != seen {
			t.Errorf("%s: Dovecot heard of it %d times", listener, n-seen)
		}
	}
}

// A client that sends everything at once (RFC 2449 section 6.6) is answered in
// order, and a login in the middle is judged like any other.
func TestPOP3Pipelining(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, mailboxes(map[string]any{"authentication": "100/1h"}))
	const from = "127.70.3.1"
	user := bed.Users[36]
	bed.Put(t, user.Login, message("pipelined", "one line"))
	conn := mustOpen(t, p.Guess("pop3s", from, "", ""))
	fmt.Fprintf(conn, "USER %[1]s\r\nPASS %[2]s\r\nUSER %[1]s\r\nPASS %[3]s\r\nSTAT\r\nRETR 1\r\nQUIT\r\n",
		user.Login, bed.Secrets.New("pipelined"), user.Password)
	said, err := conn.Rest()
	if err != nil {
		t.Fatal(err)
	}
	var first []string
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "+OK") || strings.HasPrefix(line, "-ERR") {
			first = append(first, strings.Fields(line)[0])
		}
	}
	if got, want := strings.Join(first, " "), "+OK -ERR +OK +OK +OK +OK +OK"; got != want {
		t.Errorf("answers: %s, want %s\n%s", got, want, said)
	}
	if !strings.Contains(said, "Subject: pipelined\r\n") || !strings.HasSuffix(said, "one line\r\n.\r\n+OK Logging out.\r\n") {
		t.Errorf("the message is not whole: %q", said)
	}
	if points := p.Points(from); points != 1 {
		t.Errorf("%v points, want 1 for the wrong password", points)
	}
}

// A script goes up in a literal and comes down again, byte for byte, with all
// commands sent at once.
func TestManageSievePipelining(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, mailboxes(nil))
	user := bed.Users[37]
	conn := mustLogin(t, p.Guess("sieve", "127.70.4.1", user.Login, user.Password))
	script := "# OK \"in a comment\"\r\n# NO\r\nkeep;\r\n"
	fmt.Fprintf(conn, "CHECKSCRIPT {%[1]d+}\r\n%[2]s\r\nPUTSCRIPT \"s\" {%[1]d+}\r\n%[2]s\r\nSETACTIVE \"s\"\r\nGETSCRIPT \"s\"\r\nLOGOUT\r\n",
		len(script), script)
	said, err := conn.Rest()
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("{%d}\r\n%s\r\nOK ", len(script), script); !strings.Contains(said, want) {
		t.Errorf("the script came back as %q, want %q", said, want)
	}
	if n := strings.Count(said, "OK "); n < 5 || strings.Contains(said, "\r\nNO ") {
		t.Errorf("not all five commands were carried out: %q", said)
	}
}

// Bytes behind STLS and STARTTLS, sent in the clear, end the connection.
func TestInjectionBehindSTLSIsCut(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, mailboxes(nil))
	for i, c := range []struct{ listener, attack, answer string }{
		{"pop3", "STLS\r\nUSER injected\r\n", "+OK"},
		{"sieve", "STARTTLS\r\nNOOP \"injected\"\r\n", "OK"},
	} {
		g := p.Guess(c.listener, fmt.Sprintf("127.70.5.%d", i+1), "", "")
		g.TLS = "none"
		conn := mustOpen(t, g)
		if _, err := conn.Write([]byte(c.attack)); err != nil {
			t.Fatal(err)
		}
		said, err := conn.Rest()
		if err != nil {
			t.Errorf("%s: the connection lives on: %v", c.listener, err)
		}
		if strings.HasPrefix(said, c.answer) {
			t.Errorf("%s: TLS was begun: %q", c.listener, said)
		}
		testbed.Eventually(t, "an event of kind injection", func() bool {
			return p.Metric(testbed.MetricEvents, testbed.Labels{"kind": "injection", "listener": c.listener}) == 1
		})
	}
}

// Forty clients of one address log in at once with the right password, as after
// a restart: all of them get in.
func TestPOP3AndManageSieveLetManyIn(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, mailboxes(map[string]any{"authentication": "10/1h", "login": "20/1h"}))
	for i, listener := range []string{"pop3s", "sieve"} {
		var answers tally
		together(20, func(n int) {
			user := bed.Users[n]
			answers.try(p.Guess(listener, net.IPv4(127, 70, 6, byte(i+1)).String(), user.Login, user.Password))
		})
		if answers.count[testbed.Accepted] != 20 {
			t.Errorf("%s: %v; want 20 accepted", listener, answers.String())
		}
	}
}
