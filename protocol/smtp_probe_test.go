package protocol_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mailreeve/protocol"
)

func TestSMTPProbeLearns(t *testing.T) {
	last := probe(t, protocol.Lookup("smtp").Probe(protocol.ProbeSetup{Name: "proxy.example.test"}),
		"220 mail.example.test ESMTP Postfix (Debian)",
		"> EHLO proxy.example.test",
		"250-mail.example.test",
		"250-PIPELINING",
		"250-STARTTLS",
		"250-XCLIENT NAME ADDR",
		"250-AUTH PLAIN LOGIN",
		"250 CHUNKING",
		"> QUIT",
		"221 2.0.0 Bye")
	if last.Err != nil || !last.Done {
		t.Fatalf("got %+v", last)
	}
	want := &protocol.Offer{Host: "mail.example.test", Family: "postfix",
		Capabilities: []string{"PIPELINING", "AUTH PLAIN LOGIN", "CHUNKING"}}
	if diff := cmp.Diff(want, last.Offer); diff != "" {
		t.Errorf("offer (-want +got):\n%s", diff)
	}
}

// Courier does not say in its greeting who it is.
func TestSMTPProbeKnowsCourier(t *testing.T) {
	last := probe(t, protocol.Lookup("smtp").Probe(protocol.ProbeSetup{Name: "p.test"}),
		"220 mail.example.test ESMTP", "> EHLO p.test",
		"250-mail.example.test Ok.", "250-XVERP=Courier", "250 DSN", "> QUIT", "221 Bye.")
	if last.Err != nil || last.Offer.Family != "courier" {
		t.Errorf("got %+v", last)
	}
}

// That a server will not let us speak for clients is seen before the first client
// comes.
func TestSMTPProbeAsksForXCLIENT(t *testing.T) {
	set := protocol.ProbeSetup{Name: "p.test", XClient: true}
	last := probe(t, protocol.Lookup("smtp").Probe(set),
		"220 mail.example.test ESMTP Postfix", "> EHLO p.test",
		"250-mail.example.test", "250 PIPELINING")
	if !errors.Is(last.Err, protocol.ErrNoXClient) {
		t.Errorf("got %+v, want %v", last, protocol.ErrNoXClient)
	}
	last = probe(t, protocol.Lookup("smtp").Probe(set),
		"220 mail.example.test ESMTP Postfix", "> EHLO p.test",
		"250-mail.example.test", "250 XCLIENT ADDR", "> QUIT", "221 bye")
	if last.Err != nil || !last.Done || len(last.Offer.Capabilities) > 0 {
		t.Errorf("got %+v", last)
	}
}

func TestSMTPProbeReachesTLS(t *testing.T) {
	last := probe(t, protocol.Lookup("smtp").Probe(protocol.ProbeSetup{Name: "p.test", StartTLS: true}),
		"220-mail.example.test ESMTP Exim 4.96",
		"220 welcome",
		"> EHLO p.test",
		"250-mail.example.test Hello",
		"250 STARTTLS",
		"> STARTTLS",
		"220 TLS go ahead",
		"-- tls --",
		"> EHLO p.test",
		"250-mail.example.test Hello",
		"250 AUTH PLAIN",
		"> QUIT",
		"221 bye")
	if last.Err != nil || !last.Done {
		t.Fatalf("got %+v", last)
	}
	if diff := cmp.Diff([]string{"AUTH PLAIN"}, last.Offer.Capabilities); diff != "" {
		t.Errorf("capabilities (-want +got):\n%s", diff)
	}
	last = probe(t, protocol.Lookup("smtp").Probe(protocol.ProbeSetup{Name: "p.test", StartTLS: true, Stop: true}),
		"220 mail.example.test ESMTP",
		"250-mail.example.test",
		"250 STARTTLS",
		"220 go ahead")
	if !last.StartTLS || !last.Done || string(last.Greeting) != "220 mail.example.test ESMTP\r\n" {
		t.Errorf("got %+v", last)
	}
}

func TestSMTPProbeExplains(t *testing.T) {
	tests := []struct {
		name  string
		set   protocol.ProbeSetup
		lines []string
		is    error
		want  string
	}{
		{"Postfix without the header setting", protocol.ProbeSetup{},
			[]string{"220 mail.example.test ESMTP Postfix", "500 5.5.2 Error: bad syntax"},
			protocol.ErrHeaderUnexpected, "smtpd_upstream_proxy_protocol=haproxy"},
		{"Postfix that could not read the header", protocol.ProbeSetup{},
			[]string{"421 4.3.0 mail.example.test Server local error"},
			protocol.ErrHeaderUnread, `proxy-protocol = "v2"`},
		{"Exim that got no header", protocol.ProbeSetup{},
			[]string{"220 mail.example.test ESMTP Exim", "503 Command refused, required Proxy negotiation failed"},
			protocol.ErrHeaderUnread, "hosts_proxy"},
		{"a refusing server", protocol.ProbeSetup{},
			[]string{"554 5.7.1 go away"}, nil, "refuses connections"},
		{"another protocol", protocol.ProbeSetup{},
			[]string{"* OK Dovecot ready."}, nil, "no SMTP server"},
		{"no STARTTLS", protocol.ProbeSetup{StartTLS: true},
			[]string{"220 mail.example.test ESMTP", "250 mail.example.test"}, nil, "no STARTTLS"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			last := probe(t, protocol.Lookup("submission").Probe(test.set), test.lines...)
			if last.Err == nil || !strings.Contains(last.Err.Error(), test.want) {
				t.Fatalf("got %v, want %q", last.Err, test.want)
			}
			if test.is != nil && !errors.Is(last.Err, test.is) {
				t.Errorf("got %v, want %v", last.Err, test.is)
			}
		})
	}
}
