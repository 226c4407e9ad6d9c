package protocol

import (
	"fmt"
	"strings"
)

// A sieveProber asks a server what it is: greeting, [STARTTLS, whose handshake
// is followed by another list,] LOGOUT. The list is in the greeting.
type sieveProber struct {
	set   ProbeSetup
	asked string
	caps  []string
	host  string
	make  string
	// greeting is the greeting's last line.
	greeting []byte
}

func newSieveProbe(set ProbeSetup) Prober { return &sieveProber{set: set} }

// Server takes one line of the server.
func (p *sieveProber) Server(line []byte) ProbeStep {
	if !sieveFinal(line) {
		return p.listed(strings.TrimRight(string(line), "\r\n"))
	}
	r, _, _ := parseSieveReply(line)
	if p.greeting == nil && r.code != "OK" {
		return ProbeStep{Err: fmt.Errorf("the server refuses connections: %.200q", line)}
	}
	if p.greeting == nil {
		p.greeting = append([]byte(nil), line...)
		host, family := greetingFacts(r.text)
		p.host = host
		if p.make == "" {
			p.make = family
		}
		switch {
		case p.set.StartTLS:
			return p.ask("STARTTLS")
		case p.set.Stop:
			return ProbeStep{Done: true, Greeting: p.greeting}
		}
		return p.ask("LOGOUT")
	}
	return p.answered(line, r)
}

func (p *sieveProber) ask(command string) ProbeStep {
	p.asked = command
	return ProbeStep{Send: []byte(command + "\r\n")}
}

// answered takes the final response to what we asked.
func (p *sieveProber) answered(line []byte, r reply) ProbeStep {
	switch {
	case p.asked == "LOGOUT" && r.code != "OK":
		return ProbeStep{Err: ErrHeaderUnexpected}
	case p.asked == "STARTTLS" && r.code != "OK":
		return ProbeStep{Err: fmt.Errorf("the server refuses STARTTLS (%.200q): set tls = \"none\" or \"implicit\" for this upstream", line)}
	case p.asked == "STARTTLS":
		// The list comes again, unasked, and its end is what the
		// conversation is to see.
		p.asked, p.caps = "TLS", nil
		return ProbeStep{StartTLS: true}
	case p.asked == "TLS" && p.set.Stop:
		return ProbeStep{Done: true, Greeting: p.greeting}
	case p.asked == "TLS":
		return p.ask("LOGOUT")
	}
	return ProbeStep{Done: true, Offer: &Offer{Host: p.host, Family: p.make, Capabilities: p.caps}}
}

// listed takes a line of the capabilities.
func (p *sieveProber) listed(line string) ProbeStep {
	if !strings.HasPrefix(line, `"`) {
		return ProbeStep{Err: fmt.Errorf("this is no ManageSieve server: it says %.60q", line)}
	}
	word, rest, _ := strings.Cut(strings.ToUpper(line), " ")
	switch word {
	case `"STARTTLS"`, `"XCLIENT"`, `"UNAUTHENTICATE"`:
		return ProbeStep{}
	case `"IMPLEMENTATION"`:
		if _, family := greetingFacts(rest); family != "" {
			p.make = family
		}
	}
	p.caps = append(p.caps, line)
	return ProbeStep{}
}
