package protocol

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An imapProber asks a server what it is: greeting, [STARTTLS,] CAPABILITY,
// ID, LOGOUT.
type imapProber struct {
	set   ProbeSetup
	tag   string
	offer Offer
	// greeting is the server's, without its capabilities where those were for
	// a connection without TLS.
	greeting []byte
}

func newIMAPProbe(set ProbeSetup) Prober { return &imapProber{set: set} }

// Server takes one line of the server.
func (p *imapProber) Server(line []byte) ProbeStep {
	r := parseIMAPReply(line)
	tag, _, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), " ")
	switch {
	case p.greeting == nil:
		return p.greeted(line, tag, r)
	case tag == "*":
		return p.untagged(line, r)
	case tag != p.tag:
		return ProbeStep{Err: ErrHeaderUnexpected}
	}
	return p.tagged(line, r)
}

func (p *imapProber) greeted(line []byte, tag string, r reply) ProbeStep {
	switch {
	case tag != "*":
		return ProbeStep{Err: fmt.Errorf("this is no IMAP server: it greets with %.60q", line)}
	case r.code == "BAD":
		return ProbeStep{Err: ErrHeaderUnexpected}
	case r.code == "PREAUTH":
		return ProbeStep{Err: errors.New("the server greets with PREAUTH, it takes anybody who connects as logged in: configure it to require a login")}
	case r.code != "OK":
		return ProbeStep{Err: fmt.Errorf("the server refuses connections: %.200q", line)}
	}
	p.greeting = append([]byte(nil), line...)
	if p.set.StartTLS {
		p.greeting = []byte("* OK " + r.text + "\r\n")
	}
	p.offer.Host, p.offer.Family = greetingFacts(r.text)
	switch {
	case p.set.StartTLS:
		return p.ask("a", "STARTTLS")
	case p.set.Stop:
		return ProbeStep{Done: true, Greeting: p.greeting}
	}
	return p.ask("b", "CAPABILITY")
}

func (p *imapProber) ask(tag, command string) ProbeStep {
	p.tag = tag
	return ProbeStep{Send: []byte(tag + " " + command + "\r\n")}
}

func (p *imapProber) untagged(line []byte, r reply) ProbeStep {
	upper := strings.ToUpper(strings.TrimRight(string(line), "\r\n"))
	switch {
	case r.code == "BAD" && p.tag == "b":
		return ProbeStep{Err: ErrHeaderUnexpected}
	case r.code == "BYE" && p.tag != "d":
		return ProbeStep{Err: fmt.Errorf("the server ended the dialogue: %.200q", line)}
	case r.code == "CAPABILITY":
		_, list, _, _ := cutCapabilities(line)
		p.offer.Capabilities = slices.DeleteFunc(strings.Fields(string(list)),
			func(w string) bool { return strings.EqualFold(w, "STARTTLS") })
	case r.code == "ID" && p.offer.Family == "":
		if strings.Contains(upper, `"DOVECOT"`) {
			p.offer.Family = "dovecot"
		} else if strings.Contains(upper, `"CYRUS`) {
			p.offer.Family = "cyrus"
		}
	}
	return ProbeStep{}
}

func (p *imapProber) tagged(line []byte, r reply) ProbeStep {
	switch p.tag {
	case "a":
		if r.code != "OK" {
			return ProbeStep{Err: fmt.Errorf("the server refuses STARTTLS (%.200q): set tls = \"none\" or \"implicit\" for this upstream", line)}
		}
		if p.set.Stop {
			return ProbeStep{StartTLS: true, Done: true, Greeting: p.greeting}
		}
		step := p.ask("b", "CAPABILITY")
		step.StartTLS = true
		return step
	case "b":
		if r.code != "OK" {
			return ProbeStep{Err: fmt.Errorf("the server refuses CAPABILITY: %.200q", line)}
		}
		// ID tells the family where the greeting was changed.
		if p.offer.Family == "" && slices.Contains(p.offer.Capabilities, "ID") {
			return p.ask("c", "ID NIL")
		}
		return p.ask("d", "LOGOUT")
	case "c":
		return p.ask("d", "LOGOUT")
	}
	offer := p.offer
	return ProbeStep{Done: true, Offer: &offer}
}
