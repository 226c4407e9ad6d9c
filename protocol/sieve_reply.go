package protocol

import (
	"bytes"
	"strings"
)

// The server's side of a ManageSieve dialogue.

// Server decides about the server's bytes.
func (c *sieveConversation) Server(data []byte) Step {
	switch {
	case len(data) == 0:
		return Step{Do: More}
	case c.to.literal > 0:
		return c.to.octets(data)
	case c.loggedIn:
		return c.framedServer(data)
	}
	line, step, ok := c.serverLine(data)
	if !ok {
		return step
	}
	switch {
	case sieveFinal(line) && !c.to.inside:
		r, size, state := parseSieveReply(data)
		if state == sieveBad || state == sievePart && len(data) >= MaxLine {
			return c.babble()
		}
		if state == sievePart {
			return Step{Do: More}
		}
		return c.final(data[:size], r)
	case c.server == serverGreets:
		return c.swallow(line)
	case c.auth != nil && len(c.pending) == 1:
		return c.challenge(data)
	}
	return c.listed(line)
}

// swallow drops a line of the server's greeting: the client has ours.
func (c *sieveConversation) swallow(line []byte) Step {
	if line[0] != '"' || bytes.HasSuffix(line, []byte("}\r\n")) {
		step := c.babble()
		step.Why = "server's greeting is not ManageSieve's"
		return step
	}
	return Step{Take: len(line)}
}

// challenge passes a challenge, a string on a line of its own.
func (c *sieveConversation) challenge(data []byte) Step {
	size, state := 0, sieveBad
	switch data[0] {
	case '"':
		_, size, state = sieveQuoted(data)
	case '{':
		_, size, state = sieveLiteral(data, "}\r\n")
	}
	switch {
	case state == sieveBad || state == sievePart && len(data) >= MaxAuthLine:
		return c.babble()
	case state == sievePart || len(data) < size+2:
		return Step{Do: More}
	}
	return c.challenged(size + 2)
}

// listed passes a line of a list, and edits it if it is one of capabilities.
func (c *sieveConversation) listed(line []byte) Step {
	inside := c.to.inside
	step := c.to.data(line)
	if inside || len(c.pending) == 0 || c.pending[0].verb != "CAPABILITY" {
		return step
	}
	text := strings.TrimRight(string(line), "\r\n")
	told, keep := c.editCapability(text)
	if keep && told == text {
		return step
	}
	step.Forward = false
	if keep {
		step.ToClient = []byte(told + "\r\n")
	}
	return step
}

// final takes a final response, with all of its text.
func (c *sieveConversation) final(whole []byte, r reply) Step {
	if c.server == serverGreets {
		return c.greeted(whole, r)
	}
	step := Step{Take: len(whole), Forward: true}
	c.bye = c.bye || r.code == "BYE"
	c.stray = c.stray || len(c.pending) == 0
	if len(c.pending) == 0 || r.code == "BYE" && c.pending[0].verb != "AUTHENTICATE" {
		if m := c.set.replies().lookup("managesieve", "*", r); m.kind != "" {
			step.Events = []Event{{Kind: m.kind, Code: sieveLabel(r)}}
		}
		return step
	}
	verb := c.pending[0].verb
	c.pending = c.pending[1:]
	switch {
	case verb == "AUTHENTICATE":
		return c.settled(whole, r)
	case verb == "CAPABILITY" && c.offersStartTLS() && r.code == "OK":
		return Step{Take: len(whole), ToClient: append([]byte("\"STARTTLS\"\r\n"), whole...)}
	}
	if m := c.set.replies().lookup("managesieve", "*", r); m.kind != "" {
		step.Events = []Event{{Kind: m.kind, Code: sieveLabel(r)}}
	}
	return step
}

// greeted ends the server's greeting. A refusal is told to the client.
func (c *sieveConversation) greeted(whole []byte, r reply) Step {
	if r.code == "OK" {
		c.server = serverOpen
		return Step{Take: len(whole)}
	}
	text := r.text
	if text == "" {
		text = "Try again later."
	}
	return Step{
		Take:     len(whole),
		ToClient: []byte("BYE (TRYLATER) " + sieveQuote([]byte(text)) + "\r\n"),
		Outcome:  c.outstanding(),
		Code:     sieveLabel(r),
		Do:       End,
		Why:      "server refused the connection in its greeting",
	}
}

// settled takes the final response to AUTHENTICATE.
func (c *sieveConversation) settled(whole []byte, r reply) Step {
	if step, ok := c.brokenOff(r, sieveLabel(r), len(whole)); ok {
		return step
	}
	step := c.settle(r, sieveLabel(r))
	step.Take, step.Forward = len(whole), true
	c.loggedIn = r.code == "OK"
	return step
}

// sieveLabel is a reply without its text.
func sieveLabel(r reply) string {
	if r.enhanced == "" {
		return r.code
	}
	return r.code + " (" + r.enhanced + ")"
}

// ServerGone tells the client, and settles what the server left open.
func (c *sieveConversation) ServerGone() Step {
	return c.gone(len(c.pending) > 0 || c.server == serverGreets)
}

// A sieveFrame is where one direction stands among literals.
type sieveFrame struct {
	// literal is how many octets of a literal are still to come.
	literal int64
	// inside a command or response, behind its first line's start.
	inside bool
}

// octets passes what there is of a literal.
func (f *sieveFrame) octets(data []byte) Step {
	n := min(int64(len(data)), f.literal)
	f.literal -= n
	return Step{Take: int(n), Forward: true}
}

// data passes a server's line and notes the literal that it may announce.
func (f *sieveFrame) data(line []byte) Step {
	_, lit, ok := cutIMAPLiteral(bytes.TrimRight(line, "\r\n"))
	f.inside = ok && lit.present
	f.literal = 0
	if f.inside {
		f.literal = lit.size
	}
	return Step{Take: len(line), Forward: true}
}
