package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// short are timeouts a test can wait for. What must not be cut lasts longer
// than all of them.
func short() map[string]any {
	return map[string]any{"handshake": "1s", "first-command": "1s", "login": "2s", "mail": "2s", "command": "10s"}
}

// longer is longer than every timeout of short that could cut the innocent.
const longer = 4 * time.Second

// A loiterer is one way of keeping a connection busy for nothing.
type loiterer struct {
	name     string
	listener string
	loiter   func(conn *testbed.Conn) error
}

var loiterers = [...]loiterer{
	{"says nothing", "imap", func(*testbed.Conn) error { return nil }},
	{"stops before TLS", "imaps", func(*testbed.Conn) error { return nil }},
	{"stops in the handshake", "imaps", func(c *testbed.Conn) error {
		_, err := c.Write([]byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01}) // the head of a ClientHello
		return err
	}},
	{"drips bytes", "submission", drip},
	{"stops after STARTTLS", "submission", func(c *testbed.Conn) error {
		if _, err := c.Reply(); err != nil {
			return err
		}
		for _, command := range []string{"EHLO client.example.test", "STARTTLS"} {
			if _, err := c.SMTP("%s", command); err != nil {
				return err
			}
		}
		return nil
	}},
}

// drip sends a byte of an endless command now and then until it is cut.
func drip(c *testbed.Conn) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for range 50 {
		<-tick.C
		if _, err := c.Write([]byte("x")); err != nil {
			return nil
		}
	}
	return fmt.Errorf("50 bytes were taken over 10 s")
}

// Who does nothing is ended on time and counted; the servers are not bothered.
func TestLoiterersAreEnded(t *testing.T) {
	t.Parallel()
	cfg := bed.Standard(map[string]any{"loitering": "100/1d"})
	cfg.Timeouts = short()
	p := bed.NewProxy(t, cfg)
	dials := p.Metric(testbed.MetricDials, nil)
	for i, l := range loiterers {
		from := fmt.Sprintf("127.34.0.%d", i+1)
		t.Run(l.name, func(t *testing.T) {
			begun := time.Now()
			conn, err := testbed.Dial(from, p.Port(l.listener))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := l.loiter(conn); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Rest(); err != nil {
				t.Errorf("after %v: %v", time.Since(begun), err)
			}
			testbed.Eventually(t, "a point for loitering", func() bool { return p.Points(from) == 1 })
		})
	}
	if now := p.Metric(testbed.MetricDials, nil); now != dials {
		t.Errorf("%v dials for loiterers", now-dials)
	}
}

// At the limit they are banned.
func TestLoiterersAreBannedAtTheLimit(t *testing.T) {
	t.Parallel()
	const limit, from = 10, "127.34.1.1"
	cfg := bed.Standard(map[string]any{"loitering": fmt.Sprintf("%d/1d", limit)})
	cfg.Timeouts = short()
	p := bed.NewProxy(t, cfg)
	together(limit, func(int) {
		conn, err := testbed.Dial(from, p.Port("imap"))
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, err := conn.Rest(); err != nil {
			t.Error(err)
		}
	})
	mustBan(t, p, from)
	if !dropped(t, from, p.Port("imap")) {
		t.Error("the next connection was not dropped")
	}
}

// A client in IDLE, one that sends its message slowly, and one whose server is
// late are not loiterers, though all last longer than the timeouts.
func TestPatientClientsAreNotCut(t *testing.T) {
	t.Parallel()
	cfg := bed.Standard(map[string]any{"loitering": "3/1d"})
	cfg.Timeouts = short()
	p := bed.NewProxy(t, cfg)
	release := make(chan struct{})
	late := testbed.NewFake(t, testbed.Script{Protocol: "imap", Late: longer,
		Login: func(testbed.FakeLogin) string { return testbed.IMAPAccepted }})
	lateEnd := testbed.NewFake(t, testbed.Script{Protocol: "smtp",
		End: func() string { <-release; return "250 2.0.0 Ok" }})
	lateCfg := testbed.InFront("imap", "implicit", late.Port, map[string]any{"loitering": "3/1d"})
	lateCfg.Upstreams = append(lateCfg.Upstreams, testbed.Upstream{
		Name: "late-mx", Addresses: []string{fmt.Sprintf("127.0.0.1:%d", lateEnd.Port)}})
	lateCfg.Listeners = append(lateCfg.Listeners, testbed.Listener{
		Name: "mx", Protocol: "smtp", TLS: "none", Upstream: "late-mx"})
	lateCfg.Timeouts = short()
	behind := bed.NewProxy(t, lateCfg)
	timer := time.AfterFunc(longer, func() { close(release) })
	t.Cleanup(func() { timer.Stop() })

	together(4, func(i int) {
		name := []string{"IDLE", "slow DATA", "late answer to a login", "late answer to a message"}[i]
		f := []func() error{
			func() error { return idles(p) },
			func() error { return sendsSlowly(p) },
			func() error { return waitsForLogin(behind) },
			func() error { return waitsForReply(behind) },
		}[i]
		if err := f(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	for _, q := range []*testbed.Proxy{p, behind} {
		if n := q.Metric(testbed.MetricEvents, testbed.Labels{"kind": "loitering"}); n != 0 {
			t.Errorf("%v events of loitering, want none", n)
		}
	}
}

func idles(p *testbed.Proxy) error {
	answer, text, conn := p.Guess("imaps", "127.34.2.1", bed.Users[30].Login, bed.Users[30].Password).Try()
	if conn == nil {
		return fmt.Errorf("login: %v %q", answer, text)
	}
	defer conn.Close()
	if line, err := conn.IMAP("s", "SELECT INBOX"); err != nil || !strings.HasPrefix(line, "s OK") {
		return fmt.Errorf("SELECT: %q, %v", line, err)
	}
	if err := conn.Send("i IDLE"); err != nil {
		return err
	}
	if line, err := conn.Line(); err != nil || !strings.HasPrefix(line, "+") {
		return fmt.Errorf("IDLE: %q, %v", line, err)
	}
	wait(longer)
	if err := conn.Send("DONE"); err != nil {
		return err
	}
	line, err := conn.Tagged("i")
	if err != nil || !strings.HasPrefix(line, "i OK") {
		return fmt.Errorf("DONE: %q, %v", line, err)
	}
	return nil
}

// wait lets time pass. The tests here are about time: there is no condition
// that could be awaited in its place.
func wait(d time.Duration) { <-time.After(d) }

func sendsSlowly(p *testbed.Proxy) error {
	conn, err := p.Guess("mx", "127.34.2.2", "", "").Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, command := range []string{"MAIL FROM:<" + envelopeFrom + ">", "RCPT TO:<" + bed.Users[31].Login + ">", "DATA"} {
		if reply, err := conn.SMTP("%s", command); err != nil || reply[0] > '3' {
			return fmt.Errorf("%s: %q, %v", command, reply, err)
		}
	}
	for i := range 20 {
		wait(longer / 20)
		if err := conn.Send("X-Line: %d", i); err != nil {
			return err
		}
	}
	if reply, err := conn.SMTP("\r\nslow\r\n."); err != nil || reply[0] != '2' {
		return fmt.Errorf("end of DATA: %q, %v", reply, err)
	}
	return nil
}

func waitsForLogin(p *testbed.Proxy) error {
	answer, text, conn := p.Guess("imap", "127.34.2.3", "late@example.test", bed.Secrets.New("late")).Try()
	if conn == nil {
		return fmt.Errorf("%v %q", answer, text)
	}
	return conn.Close()
}

func waitsForReply(p *testbed.Proxy) error {
	conn, err := p.Guess("mx", "127.34.2.4", "", "").Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, command := range []string{"MAIL FROM:<a@example.org>", "RCPT TO:<b@example.test>", "DATA", "late\r\n."} {
		if reply, err := conn.SMTP("%s", command); err != nil || reply[0] > '3' {
			return fmt.Errorf("%s: %q, %v", command, reply, err)
		}
	}
	return nil
}
