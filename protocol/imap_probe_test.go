package protocol_test

import (
	"slices"
	"strings"
	"testing"

	"mailreeve/protocol"
)

// probe lets a prober speak to a server that says lines; a line that begins
// with ">" is what the prober must send next, "-- tls --" the handshake.
func probe(t *testing.T, p protocol.Prober, lines ...string) protocol.ProbeStep {
	t.Helper()
	var last protocol.ProbeStep
	var sent string
	for _, line := range lines {
		switch {
		case line == "-- tls --":
			if !last.StartTLS {
				t.Fatalf("no handshake after %+v", last)
			}
		case strings.HasPrefix(line, "> "):
			if sent != line[2:]+"\r\n" {
				t.Fatalf("sent %q, want %q", sent, line[2:])
			}
		default:
			last = p.Server([]byte(line + "\r\n"))
			sent = string(last.Send)
		}
	}
	return last
}

func TestIMAPProbeLearns(t *testing.T) {
	last := probe(t, protocol.Lookup("imap").Probe(protocol.ProbeSetup{}),
		"* OK [CAPABILITY IMAP4rev1 ID] ready.",
		"> b CAPABILITY",
		"* CAPABILITY IMAP4rev1 ID STARTTLS AUTH=PLAIN",
		"b OK done",
		"> c ID NIL",
		`* ID ("name" "Dovecot")`,
		"c OK done",
		"> d LOGOUT",
		"* BYE Logging out",
		"d OK done")
	if last.Err != nil || !last.Done || last.Offer == nil {
		t.Fatalf("got %+v", last)
	}
	if want := []string{"IMAP4rev1", "ID", "AUTH=PLAIN"}; !slices.Equal(last.Offer.Capabilities, want) {
		t.Errorf("capabilities: got %q, want %q", last.Offer.Capabilities, want)
	}
	if last.Offer.Family != "dovecot" || last.Offer.Host != "" {
		t.Errorf("family %q, host %q", last.Offer.Family, last.Offer.Host)
	}
}

func TestIMAPProbeNotesHostAndFamilyInGreeting(t *testing.T) {
	last := probe(t, protocol.Lookup("imap").Probe(protocol.ProbeSetup{}),
		"* OK [CAPABILITY IMAP4rev1] imap.example.test Cyrus IMAP 3.8 server ready",
		"* CAPABILITY IMAP4rev1", "b OK done", "> d LOGOUT", "d OK done")
	if last.Offer == nil || last.Offer.Family != "cyrus" || last.Offer.Host != "imap.example.test" {
		t.Fatalf("got %+v", last.Offer)
	}
}

func TestIMAPProbeReachesTLS(t *testing.T) {
	last := probe(t, protocol.Lookup("imap").Probe(protocol.ProbeSetup{StartTLS: true, Stop: true}),
		"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] Dovecot ready.",
		"> a STARTTLS",
		"a OK Begin TLS negotiation now.",
		"-- tls --")
	if !last.Done || string(last.Greeting) != "* OK Dovecot ready.\r\n" {
		t.Fatalf("got done %v, greeting %q", last.Done, last.Greeting)
	}
	last = probe(t, protocol.Lookup("imap").Probe(protocol.ProbeSetup{StartTLS: true}),
		"* OK Dovecot ready.", "> a STARTTLS", "a OK go on", "-- tls --", "> b CAPABILITY")
	if last.Done || last.Err != nil {
		t.Fatalf("got %+v", last)
	}
}

func TestIMAPProbeExplains(t *testing.T) {
	for _, c := range []struct {
		want  string
		lines []string
	}{
		{"haproxy = yes", []string{"* OK Dovecot ready.", "* BAD Error in IMAP command received by server."}},
		{"haproxy = yes", []string{"* OK Dovecot ready.", "PROXY BAD Error in IMAP command TCP4: Unknown command."}},
		{"haproxy = yes", []string{"* BAD Invalid tag"}},
		{"PREAUTH", []string{"* PREAUTH welcome"}},
		{"refuses connections", []string{"* BYE Too many connections"}},
		{"no IMAP server", []string{"220 mx.example.test ESMTP Postfix"}},
		{"ended the dialogue", []string{"* OK ready", "* BYE Disconnected for inactivity."}},
	} {
		last := probe(t, protocol.Lookup("imap").Probe(protocol.ProbeSetup{}), c.lines...)
		if last.Err == nil || !strings.Contains(last.Err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.lines, last.Err, c.want)
		}
	}
	last := probe(t, protocol.Lookup("imap").Probe(protocol.ProbeSetup{StartTLS: true}),
		"* OK ready", "a BAD unknown command")
	if last.Err == nil || !strings.Contains(last.Err.Error(), "STARTTLS") {
		t.Errorf("got %v", last.Err)
	}
}
