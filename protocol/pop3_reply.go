package protocol

import (
	"bytes"
	"strings"
)

// The server's side of a POP3 dialogue before login.

// Server decides about the server's bytes.
func (c *pop3Conversation) Server(data []byte) Step {
	if len(data) == 0 {
		return Step{Do: More}
	}
	line, step, ok := c.serverLine(data)
	if !ok {
		return step
	}
	switch {
	case c.server == serverGreets:
		return c.greeted(line)
	case c.listing:
		return c.listed(line)
	case len(c.pending) == 0:
		// Nobody asked. Some servers say why they close.
		c.stray = true
		r := parsePOP3Reply(line)
		step := Step{Take: len(line), Forward: true}
		c.noteOther(&step, r)
		return step
	case line[0] == '+' && !bytes.HasPrefix(bytes.ToUpper(line), []byte("+OK")):
		return c.challenged(len(line))
	}
	return c.replied(line, parsePOP3Reply(line))
}

// noteOther tells what a reply to something else than a login stands for.
func (c *pop3Conversation) noteOther(step *Step, r reply) {
	if m := c.set.replies().lookup("pop3", "*", r); m.kind != "" {
		step.Events = []Event{{Kind: m.kind, Code: imapLabel(r)}}
		c.bye = c.bye || m.kind == TooManyErrors
	}
}

// greeted swallows the server's greeting: the client has ours. A refusal is
// told to the command that waits.
func (c *pop3Conversation) greeted(line []byte) Step {
	r := parsePOP3Reply(line)
	if r.code == "+OK" {
		c.server = serverOpen
		return Step{Take: len(line)}
	}
	text := strings.TrimSpace(r.text)
	if text == "" {
		text = "Try again later."
	}
	return Step{
		Take:     len(line),
		ToClient: []byte("-ERR [SYS/TEMP] " + text + "\r\n"),
		Outcome:  c.outstanding(),
		Code:     imapLabel(r),
		Do:       End,
		Why:      "server refused the connection in its greeting",
	}
}

// replied takes the first line of the reply to the oldest command.
func (c *pop3Conversation) replied(line []byte, r reply) Step {
	verb := c.pending[0].verb
	if verb == "PASS" && c.replaying {
		return c.userReplayed(line, r)
	}
	step := Step{Take: len(line), Forward: true}
	if r.code == "+OK" && (verb == "CAPA" || verb == "LANG?" || verb == "AUTH?") {
		c.listing = true
		return step
	}
	c.pending = c.pending[1:]
	switch verb {
	case "PASS", "AUTH":
		return c.settled(line, r)
	case "USER":
		c.named = r.code == "+OK"
	}
	c.noteOther(&step, r)
	return step
}

// listed passes a line of a multi-line reply.
func (c *pop3Conversation) listed(line []byte) Step {
	text := strings.TrimRight(string(line), "\r\n")
	step := Step{Take: len(line), Forward: true}
	capa := c.pending[0].verb == "CAPA"
	if text == "." {
		if capa && c.offersStartTLS() {
			step = Step{Take: len(line), ToClient: append([]byte("STLS\r\n"), line...)}
		}
		c.listing = false
		c.pending = c.pending[1:]
		return step
	}
	if capa {
		_, step.Forward = c.editCapability(text)
	}
	return step
}

// userReplayed takes the server's answer to the USER that we replayed: on OK it
// gets the password, else that is the result.
func (c *pop3Conversation) userReplayed(line []byte, r reply) Step {
	c.replaying = false
	pass := c.pass
	c.pass = nil
	if r.code == "+OK" {
		return Step{Take: len(line), ToServer: pass}
	}
	c.pending = c.pending[1:]
	step := c.settle(r, imapLabel(r))
	step.Outcome = Neutral // the password was not looked at
	step.Take, step.Forward = len(line), true
	return step
}

// settled takes the final reply to PASS or AUTH.
func (c *pop3Conversation) settled(line []byte, r reply) Step {
	if step, ok := c.brokenOff(r, imapLabel(r), len(line)); ok {
		return step
	}
	step := c.settle(r, imapLabel(r))
	step.Take, step.Forward = len(line), true
	if r.code == "+OK" {
		c.blind = true
		step.Do = Blind
	}
	return step
}

// parsePOP3Reply reads a status line: its indicator, its response code (RFC
// 2449 section 8), its text.
func parsePOP3Reply(line []byte) reply {
	word, text, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), " ")
	r := reply{code: strings.ToUpper(word), text: text}
	if strings.HasPrefix(text, "[") {
		if code, after, ok := strings.Cut(text[1:], "]"); ok {
			r.enhanced = strings.ToUpper(code)
			r.text = strings.TrimPrefix(after, " ")
		}
	}
	return r
}

// ServerGone tells the client, and settles what the server left open.
func (c *pop3Conversation) ServerGone() Step {
	owed := len(c.pending) > 0 || c.server == serverGreets
	return c.gone(owed && !c.blind)
}
