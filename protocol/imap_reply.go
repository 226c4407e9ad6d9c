package protocol

import (
	"bytes"
	"strings"
)

// The server's side of the dialogue before login.

// Server decides about the server's bytes.
func (c *imapConversation) Server(data []byte) Step {
	if c.framed != nil {
		return c.framed.server(data)
	}
	if len(data) == 0 {
		return Step{Do: More}
	}
	if c.serverLiteral > 0 {
		n := min(int64(len(data)), c.serverLiteral)
		c.serverLiteral -= n
		return Step{Take: int(n), Forward: true}
	}
	line, step, ok := c.serverLine(data)
	if !ok {
		return step
	}
	switch {
	case c.server == serverGreets:
		return c.greeted(line)
	case line[0] == '+':
		return c.continued(line)
	case bytes.HasPrefix(line, []byte("* ")):
		return c.untagged(line)
	}
	return c.tagged(line)
}

// greeted swallows the server's greeting: the client has ours. A refusal is
// told to the command that waits.
func (c *imapConversation) greeted(line []byte) Step {
	r := parseIMAPReply(line)
	switch r.code {
	case "OK":
		c.server = serverOpen
		c.learn(line)
		c.dovecot = strings.Contains(strings.ToLower(r.text), "dovecot")
		return Step{Take: len(line)}
	case "PREAUTH":
		return Step{
			ToClient: sayIMAP(SayNoServer, ""),
			Outcome:  c.outstanding(),
			Do:       End,
			Why:      "server greets with PREAUTH: it takes anybody who connects as logged in, which is a fault in its configuration",
		}
	}
	text := strings.TrimSpace(r.text)
	if text == "" {
		text = "Try again later."
	}
	return Step{
		Take: len(line),
		ToClient: []byte(c.waiting + " NO [UNAVAILABLE] " + text + "\r\n" +
			"* BYE [UNAVAILABLE] " + text + "\r\n"),
		Outcome: c.outstanding(),
		Code:    imapLabel(r),
		Do:      End,
		Why:     "server refused the connection in its greeting",
	}
}

// untagged passes a line that answers nothing by itself.
func (c *imapConversation) untagged(line []byte) Step {
	r := parseIMAPReply(line)
	step := c.release(line)
	switch r.code {
	case "OK", "NO", "BAD", "PREAUTH":
		// A status response: its text is no place for a literal.
		return step
	case "BYE":
		c.bye = true
		if m := c.set.replies().lookup("imap", "*", r); m.kind != "" {
			step.Events = []Event{{Kind: m.kind, Code: imapLabel(r)}}
		}
		return step
	}
	if _, lit, ok := cutIMAPLiteral(bytes.TrimRight(line, "\r\n")); ok && lit.present {
		c.serverLiteral = lit.size
	}
	return step
}

// release passes a line, with its capability list as the client shall see it.
func (c *imapConversation) release(line []byte) Step {
	step := Step{Take: len(line)}
	if told := c.learn(line); &told[0] != &line[0] {
		step.ToClient = told
	} else {
		step.Forward = true
	}
	return step
}

// tagged takes a command's final reply. One with a tag that nothing waits for
// settles nothing.
func (c *imapConversation) tagged(line []byte) Step {
	r := parseIMAPReply(line)
	tag, _, _ := bytes.Cut(line, []byte(" "))
	for i, p := range c.pending {
		if p.tag != string(tag) {
			continue
		}
		c.pending = append(c.pending[:i:i], c.pending[i+1:]...)
		if p.verb == "LOGIN" || p.verb == "AUTHENTICATE" {
			return c.settled(line, r)
		}
		step := c.release(line)
		if m := c.set.replies().lookup("imap", "*", r); m.kind != "" {
			step.Events = []Event{{Kind: m.kind, Code: imapLabel(r)}}
		}
		return step
	}
	return c.release(line)
}

// settled takes the final reply to LOGIN or AUTHENTICATE.
func (c *imapConversation) settled(line []byte, r reply) Step {
	c.login = nil
	if step, ok := c.brokenOff(r, imapLabel(r), len(line)); ok {
		return step
	}
	settled := c.settle(r, imapLabel(r))
	c.loggedIn = r.code == "OK"
	step := c.release(line)
	step.Outcome, step.Code, step.Events = settled.Outcome, settled.Code, settled.Events
	switch {
	case !c.loggedIn:
	case c.blindIsSafe():
		c.blind = true
		step.Do = Blind
	default:
		c.framed = &imapFramed{c: c}
	}
	return step
}

// parseIMAPReply reads a status response, tagged or not: its word, its response
// code's first word (RFC 5530), and its text.
func parseIMAPReply(line []byte) reply {
	_, rest, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), " ")
	word, text, _ := strings.Cut(rest, " ")
	r := reply{code: strings.ToUpper(word), text: text}
	if strings.HasPrefix(text, "[") {
		if code, after, ok := strings.Cut(text[1:], "]"); ok {
			name, _, _ := strings.Cut(code, " ")
			r.enhanced = strings.ToUpper(name)
			r.text = strings.TrimPrefix(after, " ")
		}
	}
	return r
}

// imapLabel is a reply without its text.
func imapLabel(r reply) string {
	if r.enhanced == "" {
		return r.code
	}
	return r.code + " [" + r.enhanced + "]"
}

// ServerGone tells the client, and settles what the server left open.
func (c *imapConversation) ServerGone() Step {
	owed := len(c.pending) > 0 || c.server == serverGreets
	if c.framed != nil {
		owed = c.framed.pending > 0
	}
	return c.gone(owed && !c.blind)
}
