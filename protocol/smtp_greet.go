package protocol

import (
	"bytes"
	"strings"
)

// own answers what we answer before the server is dialled; ours is false if
// the command needs the server.
func (c *smtpConversation) own(cmd smtpCommand, line []byte, size int) (step Step, ours bool) {
	switch cmd.verb {
	case cmdQuit:
		step = c.local(size, "221 2.0.0 Bye", "")
		step.Do, step.Why = End, "client quit"
		return step, true
	case cmdNoop:
		c.noops++
		if c.noops <= ownNoops || c.greets() {
			return c.local(size, "250 2.0.0 Ok", ""), true
		}
	}
	if cmd.verb == cmdMail && c.needsLogin() {
		return c.local(size, c.loginFirst(), ""), true
	}
	if !c.greets() {
		return Step{}, false
	}
	switch cmd.verb {
	case cmdEhlo, cmdHelo:
		return c.ownHello(cmd, line, size), true
	case cmdRset:
		return c.local(size, "250 2.0.0 Ok", ""), true
	case cmdHelp:
		return c.local(size, "214 2.0.0 See RFC 5321", ""), true
	case cmdVrfy:
		return c.local(size, "252 2.1.5 Cannot tell; send the mail and see", ""), true
	}
	switch {
	case c.setup.Soft:
		return c.local(size, c.loginFirst(), ""), true
	case cmd.verb == cmdRcpt || cmd.verb == cmdData:
		return c.local(size, "503 5.5.1 Error: need MAIL command", ""), true
	}
	return Step{}, false
}

// loginFirst refuses what needs a login, in the words of RFC 4954 section 6 and
// RFC 3207 section 4.
func (c *smtpConversation) loginFirst() string {
	if c.setup.TLS == TLSStartTLS && !c.mayAuth() {
		return "530 5.7.0 Must issue a STARTTLS command first"
	}
	return "530 5.7.0 Authentication required"
}

// needsLogin tells whether submission refuses mail for want of a login (RFC
// 6409 section 4.3), or of TLS where that is to be had. Otherwise a server that
// offers no AUTH decides by address.
func (c *smtpConversation) needsLogin() bool {
	if !c.submission || c.authed {
		return false
	}
	return c.offersAuth || c.setup.TLS == TLSStartTLS && !c.mayAuth()
}

// greets tells whether the opening commands are ours: before TLS on a STARTTLS
// port, because the PROXY header must carry the final facts, and under a soft
// ban.
func (c *smtpConversation) greets() bool {
	return c.setup.Soft || c.setup.TLS == TLSStartTLS && !c.secure
}

// ownHello answers EHLO and HELO from what the probe has learnt, and keeps the
// line to say it to the server once it is dialled.
func (c *smtpConversation) ownHello(cmd smtpCommand, line []byte, size int) Step {
	if len(cmd.args) == 0 || size > maxHello {
		return c.local(size, "501 5.5.4 Syntax: EHLO hostname", "")
	}
	c.hello = append(append(c.hello[:0], line...), '\r', '\n')
	c.noteHello(cmd)
	if cmd.verb == cmdHelo {
		return c.local(size, "250 "+c.host(), "")
	}
	lines := append([]string{c.host()}, c.edit(c.setup.Offer.Capabilities)...)
	return c.local(size, strings.TrimSuffix(string(ehloReply(lines)), "\r\n"), "")
}

// ehloReply makes a reply of lines.
func ehloReply(lines []string) []byte {
	var out []byte
	for i, line := range lines {
		mark := byte('-')
		if i == len(lines)-1 {
			mark = ' '
		}
		out = append(out, "250"...)
		out = append(out, mark)
		out = append(out, line...)
		out = append(out, '\r', '\n')
	}
	return out
}

// edit makes of a server's EHLO keywords those that hold here: barred ones
// hidden, AUTH only where it may be used, STARTTLS where we give it.
func (c *smtpConversation) edit(keywords []string) []string {
	edited := make([]string, 0, len(keywords)+1)
	for _, line := range keywords {
		word := keywordOf(line)
		if hiddenKeywords[word] {
			continue
		}
		if word == "AUTH" {
			if line = c.editAuth(line); line == "" {
				continue
			}
		}
		edited = append(edited, line)
	}
	if c.setup.TLS == TLSStartTLS && !c.secure {
		edited = append(edited, "STARTTLS")
	}
	return edited
}

// editAuth gives the AUTH line that holds here, "" if none does. Mechanisms
// that bind the login to the TLS connection (-PLUS) are left out: the server's
// end of it is ours. Under a soft ban only what we can collect is offered.
func (c *smtpConversation) editAuth(line string) string {
	if c.setup.NoAuth || !c.mayAuth() {
		return ""
	}
	fields := strings.FieldsFunc(line[len("AUTH"):], func(r rune) bool { return r == ' ' || r == '=' })
	kept := fields[:0]
	changed := false
	for _, mech := range fields {
		upper := strings.ToUpper(mech)
		if strings.HasSuffix(upper, "-PLUS") || c.setup.Soft && !c.authed && upper != "PLAIN" && upper != "LOGIN" {
			changed = true
			continue
		}
		kept = append(kept, mech)
	}
	switch {
	case !changed:
		return line
	case len(kept) == 0:
		return ""
	}
	return line[:len("AUTH ")] + strings.Join(kept, " ")
}

// mayAuth tells whether a credential may be spoken here.
func (c *smtpConversation) mayAuth() bool { return c.secure || c.setup.PlaintextAuth }

// learn notes what a list of keywords means for us.
func (c *smtpConversation) learn(keywords []string) {
	c.offersAuth, c.offersChunking = false, false
	for _, line := range keywords {
		switch keywordOf(line) {
		case "AUTH":
			c.offersAuth = true
		case "CHUNKING":
			c.offersChunking = true
		}
	}
}

// keywordOf gives the keyword of an EHLO line, upper case. "AUTH=LOGIN" is how
// servers spell it for old clients.
func keywordOf(line string) string {
	end := strings.IndexAny(line, " \t=")
	if end < 0 {
		end = len(line)
	}
	return strings.ToUpper(line[:end])
}

// editReply edits the server's EHLO reply. It is nil if nothing changes.
func (c *smtpConversation) editReply(whole []byte) []byte {
	lines := ehloLines(whole)
	c.learn(lines[1:])
	edited := append([]string{lines[0]}, c.edit(lines[1:])...)
	if out := ehloReply(edited); !bytes.Equal(out, whole) {
		return out
	}
	return nil
}

// ehloLines gives the texts of a complete reply's lines.
func ehloLines(whole []byte) []string {
	var lines []string
	for len(whole) > 0 {
		line, size := replyLine(whole)
		if size == 0 {
			break
		}
		lines = append(lines, string(line[min(4, len(line)):]))
		whole = whole[size:]
	}
	return lines
}
