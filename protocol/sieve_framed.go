package protocol

import (
	"bytes"
	"strings"
)

// Behind a login verbs and literals are followed, scripts pass by count.

// framedClient decides about the client's bytes behind a login.
func (c *sieveConversation) framedClient(data []byte) Step {
	switch {
	case len(data) == 0:
		return Step{Do: More}
	case c.from.literal > 0:
		return c.from.octets(data)
	case c.from.inside:
		return c.framedLine(data, "")
	}
	end := bytes.IndexByte(data, '\n')
	if end < 0 && len(data) < MaxLine {
		return Step{Do: More}
	}
	word := data[:min(len(data), 41)]
	if at := bytes.IndexAny(word, " \r\n"); at >= 0 {
		word = word[:at]
	}
	verb := strings.ToUpper(string(word))
	switch {
	case verb == "UNAUTHENTICATE", verb == "AUTHENTICATE", verb == "STARTTLS",
		verb == "XCLIENT", verb == "", len(verb) > 40, !atomic(word):
		return c.framedRefusal(data, end)
	case len(c.pending) >= MaxPending:
		return Step{Do: Wait}
	}
	return c.framedLine(data, verb)
}

// framedRefusal answers a command ourselves, in its turn.
func (c *sieveConversation) framedRefusal(data []byte, end int) Step {
	if end < 0 || end > MaxLine || bytes.IndexByte(data[:end], '{') >= 0 {
		return c.violation("client sent a command that cannot be understood")
	}
	if len(c.pending) > 0 {
		return Step{Do: Wait}
	}
	return Step{Take: end + 1, ToClient: []byte("NO \"Not available here.\"\r\n")}
}

func (c *sieveConversation) violation(why string) Step {
	return Step{ToClient: saySieve(SayViolation, ""), Do: End, Why: why}
}

// framedLine passes a line, or what there is of a long one, and looks at its
// end. verb begins a command.
func (c *sieveConversation) framedLine(data []byte, verb string) Step {
	end := bytes.IndexByte(data, '\n')
	n := end + 1
	if end < 0 {
		if n = len(data) - heldTail; n <= 0 {
			return Step{Do: More}
		}
	}
	if cr := bytes.IndexByte(data[:n], '\r'); cr != end-1 && (cr >= 0 || end >= 0) {
		step := c.violation("client sent a bare CR or LF in a command")
		step.Events = []Event{{Kind: BareNewline}}
		return step
	}
	q := c.from.quotes
	if end < 0 {
		q.feed(data[:n])
		c.from.quotes, c.from.inside = q, true
	} else {
		head, lit, ok := cutIMAPLiteral(data[:end-1])
		q.feed(head)
		if !ok || lit.present && (lit.sync || !q.balanced()) {
			return c.violation("client sent a line whose literal cannot be understood")
		}
		c.from = sieveFrame{literal: lit.size, inside: lit.present}
	}
	if verb != "" {
		c.pending = append(c.pending, pendingCommand{verb: verb})
	}
	return Step{Take: n, Forward: true}
}

// framedServer decides about the server's bytes behind a login.
func (c *sieveConversation) framedServer(data []byte) Step {
	end := bytes.IndexByte(data, '\n')
	if end < 0 && (len(data) < MaxLine || !c.to.inside && sieveFinal(data)) {
		if len(data) >= MaxShown-1 {
			return c.babble()
		}
		return Step{Do: More}
	}
	if end < 0 {
		c.to.inside = true
		return Step{Take: len(data) - heldTail, Forward: true}
	}
	line := data[:end+1]
	if !c.to.inside && sieveFinal(line) {
		c.ending = true
		c.bye = c.bye || bytes.EqualFold(line[:3], []byte("BYE"))
	}
	if !c.ending {
		return c.listed(line)
	}
	// The text may be a literal: what we say ourselves must not come between.
	step := c.to.data(line)
	if !c.to.inside {
		c.ending = false
		c.pending = c.pending[min(1, len(c.pending)):]
	}
	return step
}
