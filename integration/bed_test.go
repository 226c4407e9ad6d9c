package integration

import (
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"mailreeve/integration/testbed"
)

// TestMain starts the real servers once for all tests.
func TestMain(m *testing.M) {
	os.Exit(run(m))
}

// atOnce is how many tests run at the same time. They wait more than they
// compute, so this does not depend on the number of cores.
const atOnce = "6"

func run(m *testing.M) int {
	flag.Parse()
	if err := flag.Set("test.parallel", atOnce); err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		return 1
	}
	var err error
	bed, err = testbed.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		return 1
	}
	code := m.Run()
	if err := bed.Close(code != 0); err != nil {
		fmt.Fprintln(os.Stderr, "integration: stop the servers:", err)
		return 1
	}
	return code
}

// bed is set by TestMain before any test and not changed again.
var bed *testbed.Bed

// withHeader connects to a server as mailreeve would: with a PROXY header that
// names another client and says that it has TLS.
func withHeader(t *testing.T, client string, port int) *testbed.Conn {
	t.Helper()
	conn, err := testbed.Dial("127.0.0.1", port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	header := &proxyproto.Header{
		Version: 2, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4,
		SourceAddr:      &net.TCPAddr{IP: net.ParseIP(client), Port: 4711},
		DestinationAddr: &net.TCPAddr{IP: net.ParseIP("192.0.2.25"), Port: 993},
	}
	tlv, err := tlvparse.PP2SSL{Client: tlvparse.PP2_BITFIELD_CLIENT_SSL, Verify: 1}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := header.SetTLVs([]proxyproto.TLV{tlv}); err != nil {
		t.Fatal(err)
	}
	text, err := header.Format()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(text); err != nil {
		t.Fatal(err)
	}
	return conn
}

// The bed itself: the servers believe the header, let in who is right, and say
// in their logs who was not.
func TestBedJudgesByTheHeader(t *testing.T) {
	t.Parallel()
	u := bed.Users[49]
	wrong := bed.Secrets.New("bed-wrong")

	imap := withHeader(t, "198.51.100.1", bed.Dovecot.IMAPProxy)
	if line, err := imap.Line(); err != nil || strings.Contains(line, "LOGINDISABLED") {
		t.Fatalf("Dovecot greets with %q, %v", line, err)
	}
	if line, err := imap.IMAP("a", "LOGIN %s %s", u.Login, wrong); testbed.Classify("imap", line) != testbed.Wrong {
		t.Errorf("LOGIN with a wrong password: %q, %v", line, err)
	}
	if line, err := imap.IMAP("b", "LOGIN %s %s", u.Login, u.Password); testbed.Classify("imap", line) != testbed.Accepted {
		t.Errorf("LOGIN with the right password: %q, %v", line, err)
	}

	smtp := withHeader(t, "198.51.100.2", bed.Postfix.SubmissionProxy)
	if line, err := smtp.Reply(); err != nil {
		t.Fatalf("Postfix greets with %q, %v", line, err)
	}
	if line, err := smtp.SMTP("EHLO bed.example.test"); err != nil || !strings.Contains(line, "AUTH") {
		t.Fatalf("EHLO: %q, %v", line, err)
	}
	if line, err := smtp.SMTP("AUTH PLAIN %s", testbed.Plain(u.Login, wrong)); testbed.Classify("smtp", line) != testbed.Wrong {
		t.Errorf("AUTH with a wrong password: %q, %v", line, err)
	}
	if line, err := smtp.SMTP("AUTH PLAIN %s", testbed.Plain(u.Login, u.Password)); testbed.Classify("smtp", line) != testbed.Accepted {
		t.Errorf("AUTH with the right password: %q, %v", line, err)
	}
	for _, client := range []string{"198.51.100.1", "198.51.100.2"} {
		if n := bed.Dovecot.FlushedLog(t).Count(failedLogin(client)); n != 1 {
			t.Errorf("Dovecot's log shows %d failed logins of %s, want 1", n, client)
		}
	}
	bed.Postfix.Log.Await(t, `unknown\[198\.51\.100\.2\]: SASL PLAIN authentication failed`)
}

// failedLogin matches Dovecot's lines about refused passwords from an address,
// whichever server asked.
func failedLogin(client string) string {
	return `passwd-file\([^,]*,` + strings.ReplaceAll(client, ".", `\.`) + `[,)].*(Password mismatch|unknown user)`
}

// A message goes in at the MX and is in the mailbox.
func TestBedDelivers(t *testing.T) {
	t.Parallel()
	mx := withHeader(t, "198.51.100.3", bed.Postfix.MXProxy)
	dialogue := []struct{ say, want string }{
		{"", "220"}, {"EHLO bed.example.test", "250"}, {"MAIL FROM:<x@example.org>", "250"},
		{"RCPT TO:<nobody@example.test>", "550 5.1.1"}, {"RCPT TO:<greylisted@example.test>", "450 4.2.0"},
		{"RCPT TO:<listed@example.test>", "554 5.7.1"}, {"RCPT TO:<x@example.com>", "554 5.7.1"},
		{"RCPT TO:<" + bed.Users[48].Login + ">", "250"}, {"DATA", "354"},
		{"Subject: bed\r\n\r\nhello\r\n.", "250"}, {"QUIT", "221"},
	}
	for _, d := range dialogue {
		if d.say != "" {
			if err := mx.Send("%s", d.say); err != nil {
				t.Fatal(err)
			}
		}
		if line, err := mx.Reply(); err != nil || !strings.HasPrefix(line, d.want) {
			t.Fatalf("%q is answered %q, %v; want %s", d.say, line, err, d.want)
		}
	}
	imap := withHeader(t, "198.51.100.3", bed.Dovecot.IMAPProxy)
	if line, err := imap.IMAP("a", "LOGIN %s %s", bed.Users[48].Login, bed.Users[48].Password); err != nil {
		t.Fatalf("LOGIN: %q, %v", line, err)
	}
	testbed.Eventually(t, "the message in the mailbox", func() bool {
		if err := imap.Send("s STATUS INBOX (MESSAGES)"); err != nil {
			t.Fatal(err)
		}
		line, _ := imap.Line()
		if _, err := imap.Tagged("s"); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(line, "MESSAGES 1")
	})
}

// With Dovecot's penalty on, as many servers have it, answers come late.
func TestBedHasASlowDovecot(t *testing.T) {
	t.Parallel()
	slow := bed.NewDovecot(t, testbed.DovecotSetup{Penalty: true})
	conn := withHeader(t, "198.51.100.4", slow.IMAPProxy)
	begun := time.Now()
	line, err := conn.IMAP("a", "LOGIN %s %s", bed.Alice.Login, bed.Secrets.New("bed-slow"))
	if testbed.Classify("imap", line) != testbed.Wrong {
		t.Fatalf("LOGIN: %q, %v", line, err)
	}
	if took := time.Since(begun); took < time.Second {
		t.Errorf("answered after %v; the penalty is off", took)
	}
}

// The fake servers want the header, note what they are sent, and answer as
// their scripts say.
func TestBedHasFakeServers(t *testing.T) {
	t.Parallel()
	password := bed.Secrets.New("fake")
	smtp := testbed.NewFake(t, testbed.Script{Protocol: "smtp", Login: always(testbed.SMTPAccepted)})
	conn := withHeader(t, "198.51.100.5", smtp.Port)
	if line, err := conn.Reply(); err != nil || !strings.HasPrefix(line, "220") {
		t.Fatalf("greeting: %q, %v", line, err)
	}
	if line, err := conn.SMTP("AUTH PLAIN %s", testbed.Plain("alice", password)); testbed.Classify("smtp", line) != testbed.Accepted {
		t.Errorf("AUTH: %q, %v", line, err)
	}
	want := testbed.FakeLogin{From: "198.51.100.5", Login: "alice", Password: password}
	if got := smtp.Logins(); len(got) != 1 || got[0] != want {
		t.Errorf("logins: %v, want %v", got, want)
	}
	if n := smtp.Clients(); n != 1 {
		t.Errorf("%d clients, want 1", n)
	}

	imap := testbed.NewFake(t, testbed.Script{Protocol: "imap", Login: always("")})
	conn = withHeader(t, "198.51.100.6", imap.Port)
	if line, err := conn.Line(); err != nil || !strings.HasPrefix(line, "* OK") {
		t.Fatalf("greeting: %q, %v", line, err)
	}
	if line, err := conn.IMAP("a", `LOGIN "alice" "%s"`, password); err == nil {
		t.Errorf("LOGIN is answered %q, want a reset", line)
	}
	imap.Suspend()
	if conn, err := testbed.Dial("127.0.0.1", imap.Port); err == nil {
		conn.Close()
		t.Error("a suspended server takes connections")
	}
	imap.Resume(t)
	conn = withHeader(t, "198.51.100.6", imap.Port)
	if line, err := conn.Line(); err != nil || !strings.HasPrefix(line, "* OK") {
		t.Errorf("greeting after Resume: %q, %v", line, err)
	}
}
