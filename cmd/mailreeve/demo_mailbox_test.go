package main

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/goleak"
)

// A turn is a line that is said, and how the answer's lines begin.
type turn struct {
	say  string
	want []string
}

// converse connects as mailreeve does and plays a dialogue.
func converse(t *testing.T, l net.Listener, dialogue []turn) {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	header := &proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	if _, err := header.WriteTo(conn); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(conn)
	for _, turn := range dialogue {
		if turn.say != "" {
			if _, err := io.WriteString(conn, turn.say+"\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range turn.want {
			line, err := lines.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, want) {
				t.Fatalf("%q is answered %q, %v; want %q", turn.say, line, err, want)
			}
		}
	}
}

// The demo's POP3 shows the inbox that IMAP has; what is deleted there is gone.
// ManageSieve keeps scripts. Nothing is left when the server is closed.
func TestDemoHasPOP3AndManageSieve(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	s, err := newDemoServer(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	alice := demoUsers()[0]
	for _, text := range []string{"Subject: one\r\n\r\n.dot\r\nsecond\r\n", "Subject: two\r\n\r\n"} {
		session := &demoSession{server: s}
		if err := session.Rcpt(alice.login, nil); err != nil {
			t.Fatal(err)
		}
		if err := session.Data(strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	converse(t, s.pop3, []turn{
		{"", []string{"+OK"}},
		{"STAT", []string{"-ERR"}},
		{"USER " + alice.login, []string{"+OK"}},
		{"PASS wrong", []string{"-ERR [AUTH]"}},
		{"AUTH PLAIN " + plainResponse(alice.login, alice.password), []string{"+OK"}},
		{"STAT", []string{"+OK 2 "}},
		{"LIST", []string{"+OK", "1 ", "2 16", "."}},
		{"UIDL 2", []string{"+OK 2 demo-"}},
		{"RETR 1", []string{"+OK", "Subject: one", "\r\n", "..dot", "second", ".\r\n"}},
		{"TOP 1 1", []string{"+OK", "Subject: one", "\r\n", "..dot", ".\r\n"}},
		{"RETR 3", []string{"-ERR"}},
		{"DELE 1", []string{"+OK"}},
		{"RETR 1", []string{"-ERR"}},
		{"QUIT", []string{"+OK"}},
	})
	converse(t, s.pop3, []turn{
		{"", []string{"+OK"}},
		{"AUTH PLAIN", []string{"+ "}},
		{plainResponse(alice.login, alice.password), []string{"+OK"}},
		{"LIST", []string{"+OK", "1 16", "."}},
	})
	if n := s.guesses.Load(); n != 1 {
		t.Errorf("%d wrong passwords were counted", n)
	}
	greeting := []string{`"IMPLEMENTATION"`, `"SIEVE"`, `"SASL" "PLAIN"`, `"VERSION"`, "OK"}
	converse(t, s.sieve, []turn{
		{"", greeting},
		{"LISTSCRIPTS", []string{"NO"}},
		{`AUTHENTICATE "PLAIN" "` + plainResponse(alice.login, "wrong") + `"`, []string{`NO "Authentication failed."`}},
		{`AUTHENTICATE "PLAIN"`, []string{`""`}},
		{`"` + plainResponse(alice.login, alice.password) + `"`, []string{"OK"}},
		{"PUTSCRIPT \"main\" {5+}\r\nkeep;", []string{"OK"}},
		{`SETACTIVE "main"`, []string{"OK"}},
		{"LISTSCRIPTS", []string{`"main" ACTIVE`, "OK"}},
		{`GETSCRIPT "main"`, []string{"{5}", "keep;", "OK"}},
		{`DELETESCRIPT "main"`, []string{"NO"}},
		{`GETSCRIPT "other"`, []string{"NO (NONEXISTENT)"}},
		{`PUTSCRIPT "big" {99999999+}`, []string{"BYE"}},
	})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, ignore)
}
