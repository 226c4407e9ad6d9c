package protocol

import (
	"errors"
	"fmt"
	"strings"
)

// What a probe can find wrong with the PROXY header, as sentences for the
// operator. A server that waits for a header and is sent none says nothing at
// all, for some seconds at least; whoever waited knows that.
var (
	// ErrHeaderUnexpected: the server took the header for commands.
	ErrHeaderUnexpected = errors.New("the server does not expect the PROXY header and took it for commands: " +
		"in Postfix give this service -o smtpd_upstream_proxy_protocol=haproxy, in Dovecot its inet_listener haproxy = yes, " +
		"in Exim name our address in hosts_proxy, or set proxy-protocol = \"none\" for this upstream")

	// ErrHeaderUnread: the server waited for a header and could not use what
	// came.
	ErrHeaderUnread = errors.New("the server waits for a PROXY header that it can read: " +
		"set proxy-protocol = \"v2\" for this upstream (\"v1\" for a Postfix before 3.5), " +
		"or take smtpd_upstream_proxy_protocol (Postfix) or hosts_proxy (Exim) off this service")

	// ErrNoXClient: the server does not offer XCLIENT, to us at least.
	ErrNoXClient = errors.New("the server does not offer XCLIENT to our address: " +
		"in Postfix name it in smtpd_authorized_xclient_hosts of this service, " +
		"or set proxy-protocol to \"v2\" or \"none\" for this upstream")
)

// maxKeywords bounds what is learnt from an EHLO reply.
const maxKeywords = 100

// An smtpProber asks a server what it is: greeting, EHLO, [STARTTLS, EHLO,]
// QUIT.
type smtpProber struct {
	set      ProbeSetup
	state    probeState
	first    bool // the next line is a reply's first
	offer    Offer
	greeting []byte
	startTLS bool // the server offers it
	xclient  bool // the server offers it
}

// probeState says which reply is awaited.
type probeState uint8

const (
	probeGreeting probeState = iota
	probeEhlo
	probeStartTLS
	probeQuit
)

func newSMTPProber(set ProbeSetup) Prober { return &smtpProber{set: set, first: true} }

// Server takes one line of the server.
func (p *smtpProber) Server(line []byte) ProbeStep {
	text, size := replyLine(line)
	if size == 0 || !isReplyLine(text) {
		return ProbeStep{Err: fmt.Errorf("this is no SMTP server: it says %.60q", line)}
	}
	last := len(text) == 3 || text[3] == ' '
	r, _, _ := readSMTPReply(line)
	r.code = string(text[:3])
	first := p.first
	p.first = last
	rest := string(text[min(4, len(text)):])
	switch p.state {
	case probeGreeting:
		return p.greeted(line, rest, r, first, last)
	case probeEhlo:
		return p.keyword(rest, r, first, last)
	case probeStartTLS:
		return p.secured(line, r, last)
	}
	if !last {
		return ProbeStep{}
	}
	if r.code == "500" {
		return ProbeStep{Err: ErrHeaderUnexpected}
	}
	offer := p.offer
	return ProbeStep{Done: true, Offer: &offer}
}

// greeted learns the server's name and make from its greeting.
func (p *smtpProber) greeted(line []byte, rest string, r reply, first, last bool) ProbeStep {
	switch {
	case r.code == "421" && r.enhanced == "4.3.0":
		return ProbeStep{Err: ErrHeaderUnread}
	case r.code != "220":
		return ProbeStep{Err: fmt.Errorf("the server refuses connections: %.200q", line)}
	}
	p.greeting = append(p.greeting, line...)
	if first {
		p.offer.Host = hostIn(rest)
	}
	if p.offer.Family == "" {
		p.offer.Family = smtpFamily(rest)
	}
	if !last {
		return ProbeStep{}
	}
	p.state = probeEhlo
	return p.ehlo()
}

func (p *smtpProber) ehlo() ProbeStep {
	p.offer.Capabilities, p.startTLS, p.xclient = nil, false, false
	return ProbeStep{Send: formatLine("EHLO %s", p.set.Name)}
}

// keyword learns a line of the EHLO reply.
func (p *smtpProber) keyword(rest string, r reply, first, last bool) ProbeStep {
	switch {
	case r.code == "503" && strings.Contains(strings.ToLower(rest), "proxy negotiation"):
		return ProbeStep{Err: ErrHeaderUnread}
	case r.code == "500", r.code == "501", r.code == "221":
		return ProbeStep{Err: ErrHeaderUnexpected}
	case r.code != "250":
		return ProbeStep{Err: fmt.Errorf("the server refuses EHLO %s: %s %.200q", p.set.Name, r.code, rest)}
	}
	if p.offer.Family == "" && strings.EqualFold(rest, "XVERP=Courier") {
		p.offer.Family = "courier" // whose greeting does not say so
	}
	word := keywordOf(rest)
	p.xclient = p.xclient || !first && word == "XCLIENT"
	if !first && word == "STARTTLS" {
		p.startTLS = true
	} else if !first && !hiddenKeywords[word] && isPrintable(rest) && len(p.offer.Capabilities) < maxKeywords {
		p.offer.Capabilities = append(p.offer.Capabilities, rest)
	}
	switch {
	case !last:
		return ProbeStep{}
	case !p.set.StartTLS && p.set.XClient && !p.xclient:
		return ProbeStep{Err: ErrNoXClient}
	case !p.set.StartTLS:
		p.state = probeQuit
		return ProbeStep{Send: []byte("QUIT\r\n")}
	case !p.startTLS:
		return ProbeStep{Err: errors.New("the server offers no STARTTLS: set tls = \"none\" or \"implicit\" for this upstream")}
	}
	p.state = probeStartTLS
	return ProbeStep{Send: []byte("STARTTLS\r\n")}
}

// secured goes on where STARTTLS is accepted: what was learnt before holds no
// more (RFC 3207 section 4.2).
func (p *smtpProber) secured(line []byte, r reply, last bool) ProbeStep {
	switch {
	case r.code != "220":
		return ProbeStep{Err: fmt.Errorf("the server refuses STARTTLS: %.200q", line)}
	case !last:
		return ProbeStep{}
	case p.set.Stop:
		return ProbeStep{StartTLS: true, Done: true, Greeting: p.greeting}
	}
	p.set.StartTLS = false
	p.state = probeEhlo
	step := p.ehlo()
	step.StartTLS = true
	return step
}

// hostIn gives the host name that a greeting begins with, "" if none does.
func hostIn(rest string) string {
	word, _, _ := strings.Cut(rest, " ")
	if len(word) > 255 || !strings.Contains(word, ".") {
		return ""
	}
	for _, c := range []byte(word) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && !isDigit(c) && c != '.' && c != '-' {
			return ""
		}
	}
	return word
}

// smtpFamilies are words in greetings that tell a server's make.
var smtpFamilies = []struct{ word, family string }{
	{"postfix", "postfix"}, {"exim", "exim"}, {"dovecot", "dovecot"}, {"opensmtpd", "opensmtpd"},
	{"stalwart", "stalwart"}, {"haraka", "haraka"}, {"courier", "courier"}, {"microsoft", "exchange"},
	{"maddy", "maddy"}, {"mox", "mox"}, {"sendmail", "sendmail"},
}

func smtpFamily(rest string) string {
	for word := range strings.FieldsSeq(strings.ToLower(rest)) {
		for _, f := range smtpFamilies {
			if strings.Contains(word, f.word) && !strings.Contains(word, f.word+".") {
				return f.family
			}
		}
	}
	return ""
}

// isPrintable tells whether text holds nothing but blanks and visible ASCII.
func isPrintable(text string) bool {
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
