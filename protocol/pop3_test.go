package protocol_test

import (
	"slices"
	"strings"
	"testing"

	"mailreeve/protocol"
	"mailreeve/protocol/transcript"
)

func TestPOP3Transcripts(t *testing.T) {
	transcript.Dir(t, protocol.Lookup("pop3"), "testdata/pop3")
}

func FuzzPOP3(f *testing.F) { fuzzDialogue(f, protocol.Lookup("pop3")) }

func TestPOP3Probe(t *testing.T) {
	p := protocol.Lookup("pop3")
	last := probe(t, p.Probe(protocol.ProbeSetup{StartTLS: true}),
		"+OK Dovecot (Debian) ready.", "> STLS", "+OK Begin", "-- tls --", "> CAPA",
		"+OK", "TOP", "STLS", "SASL PLAIN LOGIN", ".", "> QUIT", "+OK Logging out")
	if last.Err != nil || last.Offer == nil || last.Offer.Family != "dovecot" ||
		!slices.Equal(last.Offer.Capabilities, []string{"TOP", "SASL PLAIN LOGIN"}) {
		t.Errorf("got %+v, %+v", last, last.Offer)
	}
	last = probe(t, p.Probe(protocol.ProbeSetup{StartTLS: true, Stop: true}), "+OK ready", "> STLS", "+OK")
	if !last.StartTLS || !last.Done || string(last.Greeting) != "+OK ready\r\n" {
		t.Errorf("got %+v", last)
	}
	for _, c := range []struct {
		want  string
		lines []string
	}{
		{"haproxy = yes", []string{"+OK Dovecot ready.", "-ERR Unknown command."}},
		{"refuses connections", []string{"-ERR [SYS/TEMP] busy"}},
		{"no POP3 server", []string{"* OK ready"}},
	} {
		last := probe(t, p.Probe(protocol.ProbeSetup{}), c.lines...)
		if last.Err == nil || !strings.Contains(last.Err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.lines, last.Err, c.want)
		}
	}
}
