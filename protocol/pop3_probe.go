package protocol

import (
	"fmt"
	"strings"
)

// A pop3Prober asks a server what it is: greeting, [STLS,] CAPA, QUIT.
type pop3Prober struct {
	set      ProbeSetup
	asked    string
	listing  bool
	offer    Offer
	greeting []byte
}

func newPOP3Probe(set ProbeSetup) Prober { return &pop3Prober{set: set} }

// Server takes one line of the server.
func (p *pop3Prober) Server(line []byte) ProbeStep {
	r := parsePOP3Reply(line)
	text := strings.TrimRight(string(line), "\r\n")
	switch {
	case p.greeting == nil:
		return p.greeted(line, r)
	case p.listing:
		return p.listed(text)
	case r.code != "+OK" && p.asked == "CAPA" && strings.Contains(strings.ToLower(r.text), "unknown command"):
		return ProbeStep{Err: ErrHeaderUnexpected}
	case r.code != "+OK" && p.asked == "STLS":
		return ProbeStep{Err: fmt.Errorf("the server refuses STLS (%.200q): set tls = \"none\" or \"implicit\" for this upstream", line)}
	}
	switch p.asked {
	case "STLS":
		if p.set.Stop {
			return ProbeStep{StartTLS: true, Done: true, Greeting: p.greeting}
		}
		step := p.ask("CAPA")
		step.StartTLS = true
		return step
	case "CAPA":
		if r.code == "+OK" {
			p.listing = true
			return ProbeStep{}
		}
		// A server without CAPA takes USER and PASS.
		p.offer.Capabilities = []string{"USER"}
		return p.ask("QUIT")
	}
	offer := p.offer
	return ProbeStep{Done: true, Offer: &offer}
}

func (p *pop3Prober) ask(command string) ProbeStep {
	p.asked = command
	return ProbeStep{Send: []byte(command + "\r\n")}
}

func (p *pop3Prober) greeted(line []byte, r reply) ProbeStep {
	switch r.code {
	case "+OK":
	case "-ERR":
		return ProbeStep{Err: fmt.Errorf("the server refuses connections: %.200q", line)}
	default:
		return ProbeStep{Err: fmt.Errorf("this is no POP3 server: it greets with %.60q", line)}
	}
	p.greeting = append([]byte(nil), line...)
	p.offer.Host, p.offer.Family = greetingFacts(r.text)
	switch {
	case p.set.StartTLS:
		return p.ask("STLS")
	case p.set.Stop:
		return ProbeStep{Done: true, Greeting: p.greeting}
	}
	return p.ask("CAPA")
}

func (p *pop3Prober) listed(text string) ProbeStep {
	if text == "." {
		p.listing = false
		return p.ask("QUIT")
	}
	word, rest, _ := strings.Cut(text, " ")
	switch strings.ToUpper(word) {
	case "STLS", "XCLIENT", "XOIP":
		return ProbeStep{}
	case "IMPLEMENTATION":
		if _, family := greetingFacts(rest); family != "" {
			p.offer.Family = family
		}
	}
	p.offer.Capabilities = append(p.offer.Capabilities, text)
	return ProbeStep{}
}

// greetingFacts reads a greeting's text: the host name if its first word is
// one, and the server's make.
func greetingFacts(text string) (host, family string) {
	lower := strings.ToLower(text)
	for _, name := range []string{"dovecot", "cyrus", "courier", "stalwart", "exchange"} {
		if strings.Contains(lower, name) {
			family = name
			break
		}
	}
	first, _, _ := strings.Cut(text, " ")
	if strings.Contains(strings.Trim(first, "."), ".") && len(first) <= 253 && validIMAPTag([]byte(first)) {
		host = first
	}
	return host, family
}
