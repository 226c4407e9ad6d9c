package protocol_test

import (
	"slices"
	"strings"
	"testing"

	"mailreeve/protocol"
	"mailreeve/protocol/transcript"
)

func TestManageSieveTranscripts(t *testing.T) {
	transcript.Dir(t, protocol.Lookup("managesieve"), "testdata/managesieve")
}

func FuzzManageSieve(f *testing.F) { fuzzDialogue(f, protocol.Lookup("managesieve")) }

func TestManageSieveProbe(t *testing.T) {
	p := protocol.Lookup("managesieve")
	last := probe(t, p.Probe(protocol.ProbeSetup{StartTLS: true}),
		`"IMPLEMENTATION" "Dovecot Pigeonhole"`, `"SASL" ""`, `"STARTTLS"`, `OK "Dovecot ready."`,
		"> STARTTLS", `OK "Begin"`, "-- tls --",
		`"IMPLEMENTATION" "Dovecot Pigeonhole"`, `"SASL" "PLAIN"`, `OK "TLS."`, "> LOGOUT", `OK "bye"`)
	if last.Err != nil || last.Offer == nil || last.Offer.Family != "dovecot" ||
		!slices.Equal(last.Offer.Capabilities, []string{`"IMPLEMENTATION" "Dovecot Pigeonhole"`, `"SASL" "PLAIN"`}) {
		t.Errorf("got %+v, %+v", last, last.Offer)
	}
	last = probe(t, p.Probe(protocol.ProbeSetup{StartTLS: true, Stop: true}),
		`OK "ready"`, "> STARTTLS", "OK", "-- tls --", `"SASL" "PLAIN"`, `OK "TLS."`)
	if !last.Done || string(last.Greeting) != "OK \"ready\"\r\n" {
		t.Errorf("got %+v", last)
	}
	for _, c := range []struct {
		want  string
		lines []string
	}{
		{"haproxy = yes", []string{`OK "ready"`, `NO "Error in MANAGESIEVE command received by server."`}},
		{"refuses connections", []string{`BYE "busy"`}},
		{"no ManageSieve server", []string{"* OK ready"}},
	} {
		last := probe(t, p.Probe(protocol.ProbeSetup{}), c.lines...)
		if last.Err == nil || !strings.Contains(last.Err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.lines, last.Err, c.want)
		}
	}
}
