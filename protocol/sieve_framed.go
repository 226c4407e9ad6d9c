package protocol

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
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
	case !sieveVerbs[verb]:
		return c.framedRefusal(data, end)
	case len(c.pending) >= MaxPending:
		return Step{Do: Wait}
	}
	return c.framedLine(data, verb)
}

// sieveVerbs are the commands that pass behind a login (RFC 5804). Of one that
// it does not know Pigeonhole skips the line and takes a literal's octets for
// commands.
var sieveVerbs = map[string]bool{
	"CAPABILITY": true, "HAVESPACE": true, "PUTSCRIPT": true, "LISTSCRIPTS": true,
	"SETACTIVE": true, "GETSCRIPT": true, "DELETESCRIPT": true, "RENAMESCRIPT": true,
	"CHECKSCRIPT": true, "NOOP": true, "LOGOUT": true,
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

// framedLine passes a line and looks at its end. verb begins a command.
func (c *sieveConversation) framedLine(data []byte, verb string) Step {
	end := bytes.IndexByte(data, '\n')
	switch {
	case end < 0 && len(data) < MaxLine:
		return Step{Do: More}
	case end < 0 || end >= MaxLine:
		return c.violation("client sent too long a line")
	case end == 0 || bytes.IndexByte(data[:end], '\r') != end-1:
		step := c.violation("client sent a bare CR or LF in a command")
		step.Events = []Event{{Kind: BareNewline}}
		return step
	}
	text := data[:end-1]
	head, lit, ok := cutIMAPLiteral(text)
	if !ok || lit.present && (lit.sync || isUnaskedBinary(text, head, lit) || !sieveLeadsUp(head[len(verb):])) {
		return c.violation("client sent a line whose literal cannot be understood")
	}
	c.from = sieveFrame{literal: lit.size, inside: lit.present}
	if verb != "" {
		c.pending = append(c.pending, pendingCommand{verb: verb})
	}
	return Step{Take: end + 1, Forward: true}
}

// sieveLeadsUp tells whether what stands before a literal is nothing but strings
// and numbers, each behind one blank: at anything else a server may give up on
// the line, and take the literal's octets for commands.
func sieveLeadsUp(args []byte) bool {
	for len(args) > 0 {
		if args[0] != ' ' {
			return false
		}
		if args = args[1:]; len(args) == 0 {
			return true
		}
		if args[0] != '"' {
			number, _, _ := bytes.Cut(args, []byte(" "))
			if !areDigits(number) {
				return false
			}
			args = args[len(number):]
			continue
		}
		value, size, state := sieveQuoted(args)
		if state != sieveWhole || len(value) > maxSieveQuoted || !utf8.Valid(value) || bytes.ContainsFunc(value, unicode.IsControl) {
			return false
		}
		args = args[size:]
	}
	return false
}

// maxSieveQuoted bounds a quoted string, in octets (RFC 5804 section 4).
const maxSieveQuoted = 1024

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
