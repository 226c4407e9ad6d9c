package protocol

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A ClientAddress is what XCLIENT tells a server about a client: Postfix's way
// to learn whom a proxy speaks for, in the dialogue itself rather than ahead
// of it (XCLIENT_README). Unlike the PROXY header it carries the name in EHLO;
// it carries no TLS facts.
type ClientAddress struct {
	// Client is the client's address and port, Local where it connected to.
	Client, Local netip.AddrPort
}

// maxXClient bounds an XCLIENT command line, with its line end.
const maxXClient = 512

// introduce begins with an EHLO of our own: the attributes that the server
// takes are in its reply. The client's EHLO follows when the server knows whom
// it is from.
func (c *smtpConversation) introduce(n int) Step {
	c.link = linkIntroduce
	return Step{Take: n, ToServer: formatLine("EHLO %s", c.setup.Hostname)}
}

// introduced reads the reply to our own EHLO and says XCLIENT.
func (c *smtpConversation) introduced(data []byte) Step {
	r, n, state := readSMTPReply(data)
	if step, done := c.unread(state); done {
		return step
	}
	if r.code[0] != '2' {
		return c.refused("EHLO", r, data[:n])
	}
	for _, line := range ehloLines(data[:n])[1:] {
		if keywordOf(line) == "XCLIENT" {
			c.link = linkXClient
			return Step{Take: n, ToServer: c.xclient(line)}
		}
	}
	// Served without it, the client would have our address, and our rights.
	return c.serverFault("server does not offer XCLIENT to our address: name it in Postfix's smtpd_authorized_xclient_hosts")
}

// xclientTold takes the answer to XCLIENT: a greeting (220), as if the client
// had just connected.
func (c *smtpConversation) xclientTold(data []byte) Step {
	r, n, state := readSMTPReply(data)
	if step, done := c.unread(state); done {
		return step
	}
	if r.code[0] != '2' {
		return c.refused("CONNECT", r, data[:n])
	}
	return c.welcomed(n)
}

// xclient composes the command of the attributes that offered, the server's
// XCLIENT keyword, lists. ADDR comes last: it may change what we are allowed.
//
// NAME and REVERSE_NAME are said to be unknown: a server that is not told
// keeps the names that go with our own address. LOGIN is never said: it would
// make whoever is named a user of the server without a password, and who has
// logged in has done so at that server.
func (c *smtpConversation) xclient(offered string) []byte {
	who := c.setup.XClient
	proto := "ESMTP"
	if c.plainHello {
		proto = "SMTP"
	}
	values := []struct{ name, value string }{
		{"NAME", "[UNAVAILABLE]"}, {"REVERSE_NAME", "[UNAVAILABLE]"},
		{"PROTO", proto},
		{"PORT", strconv.Itoa(int(who.Client.Port()))},
		{"DESTADDR", xclientAddress(who.Local.Addr())},
		{"DESTPORT", strconv.Itoa(int(who.Local.Port()))},
		{"HELO", xtext(c.helloName)},
		{"ADDR", xclientAddress(who.Client.Addr())},
	}
	takes := map[string]bool{}
	for _, name := range strings.Fields(strings.ToUpper(offered))[1:] {
		takes[name] = true
	}
	const forADDR = len(" ADDR=IPV6:") + 45 // the longest address
	line := []byte("XCLIENT")
	for _, v := range values {
		if !takes[v.name] || v.value == "" {
			continue
		}
		if v.name == "HELO" && len(line)+len(" HELO=")+len(v.value)+forADDR+2 > maxXClient {
			continue // the client's own EHLO says it again
		}
		line = fmt.Appendf(line, " %s=%s", v.name, v.value)
	}
	return append(line, '\r', '\n')
}

// xclientAddress spells an address as XCLIENT wants it.
func xclientAddress(a netip.Addr) string {
	if a = a.Unmap().WithZone(""); a.Is4() {
		return a.String()
	}
	return "IPV6:" + a.String()
}

// xtext encodes what a client has said so that it cannot end a value or a
// line (RFC 3461 section 4).
func xtext(s string) string {
	var out strings.Builder
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '+' || c == '=' {
			fmt.Fprintf(&out, "+%02X", c)
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}

// noteHello remembers the client's EHLO or HELO, for XCLIENT. A name of more
// octets than a host's may have is no name (RFC 1035 section 2.3.4).
func (c *smtpConversation) noteHello(cmd smtpCommand) {
	c.plainHello, c.helloName = cmd.verb == cmdHelo, ""
	if len(cmd.args) <= 255 {
		c.helloName = string(cmd.args)
	}
}
