package protocol

import (
	"bytes"
	"strconv"
	"strings"
)

// An imapLiteral is the announcement of a literal at a line's end: {n}, {n+}
// (RFC 7888), ~{n} (RFC 3516).
type imapLiteral struct {
	present bool
	// sync: the sender waits for a continuation before the octets.
	sync bool
	size int64
}

// An imapCommand is the first line of a command.
type imapCommand struct {
	tag string
	// verb is in upper case.
	verb string
	// args is what follows the verb and its blank, without line end and
	// literal mark. It aliases the line.
	args    []byte
	literal imapLiteral
	// size counts the line's octets, CRLF included.
	size int
}

// parseIMAPCommand splits a line with its CRLF. Without ok the line is no
// command, but tag is set if there was one.
func parseIMAPCommand(line []byte) (cmd imapCommand, ok bool) {
	cmd.size = len(line)
	head, literal, ok := cutIMAPLiteral(line[:len(line)-2])
	cmd.literal = literal
	tag, rest, found := bytes.Cut(head, []byte(" "))
	if !validIMAPTag(tag) {
		return cmd, false
	}
	cmd.tag = string(tag)
	verb, args, _ := bytes.Cut(rest, []byte(" "))
	if !ok || !found || len(verb) == 0 || len(verb) > 40 || !atomic(verb) {
		return cmd, false
	}
	cmd.verb = strings.ToUpper(string(verb))
	cmd.args = args
	return cmd, !literal.present || quotesBalanced(head)
}

// validIMAPTag tells whether a tag is one (RFC 9051: any ASTRING-CHAR but +),
// and of a length that is sane to repeat in an answer.
func validIMAPTag(tag []byte) bool {
	return len(tag) > 0 && len(tag) <= 128 && atomic(tag) &&
		bytes.IndexByte(tag, '+') < 0
}

// atomic tells whether b is all ASTRING-CHAR (RFC 9051 section 9).
func atomic(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`(){%*"\`, c) >= 0 {
			return false
		}
	}
	return true
}

// cutIMAPLiteral splits a line's text, without line end, before the literal
// that it announces. Without ok its end looks like a literal that servers may
// read differently: nothing that follows can be understood for sure.
func cutIMAPLiteral(text []byte) (head []byte, lit imapLiteral, ok bool) {
	if len(text) == 0 || text[len(text)-1] != '}' {
		return text, lit, true
	}
	i := bytes.LastIndexByte(text, '{')
	if i < 0 {
		return text, lit, true
	}
	digits := text[i+1 : len(text)-1]
	if len(bytes.Trim(digits, "0123456789+- ")) > 0 {
		return text, lit, true
	}
	lit.present = true
	lit.sync = true
	if n := len(digits); n > 0 && digits[n-1] == '+' {
		lit.sync = false
		digits = digits[:n-1]
	}
	if len(digits) == 0 || len(digits) > 18 || len(bytes.Trim(digits, "0123456789")) > 0 {
		return text, lit, false
	}
	lit.size, _ = strconv.ParseInt(string(digits), 10, 64)
	head = text[:i]
	if n := len(head); n > 0 && head[n-1] == '~' {
		head = head[:n-1]
	}
	if n := len(head); n > 0 && head[n-1] != ' ' && head[n-1] != '(' {
		return text, lit, false
	}
	return head, lit, true
}

// imapQuotes follows quoted strings over a line that comes in pieces.
type imapQuotes struct {
	inside, escaped, broken bool
	last                    byte
}

// feed looks at a line's next octets. A quote that opens in the middle of a
// word, or that another word touches, is something on which servers differ.
func (q *imapQuotes) feed(b []byte) {
	for _, c := range b {
		switch {
		case q.escaped:
			q.escaped = false
		case q.inside && c == '\\':
			q.escaped = true
		case q.inside && c == '"':
			q.inside = false
		case q.inside:
		case c == '"':
			q.inside = true
			if q.last != 0 && q.last != ' ' && q.last != '(' {
				q.broken = true
			}
		case q.last == '"' && c != ' ' && c != ')' && c != ']':
			q.broken = true
		}
		q.last = c
	}
}

func (q *imapQuotes) balanced() bool { return !q.inside && !q.broken }

func quotesBalanced(text []byte) bool {
	var q imapQuotes
	q.feed(text)
	return q.balanced()
}

// An imapString is one argument of a command: an atom or a quoted string.
type imapString struct {
	// value is the string as RFC 9051 has it. Where a quoted string escapes
	// what needs no escape, raw is the same with that backslash kept: servers
	// differ.
	value, raw string
}

// imapStrings splits blank-separated atoms and quoted strings. Atoms may hold
// what real clients put into passwords, but nothing that could open another
// kind of argument.
func imapStrings(text []byte) (list []imapString, ok bool) {
	for {
		text = bytes.TrimLeft(text, " ")
		if len(text) == 0 {
			return list, true
		}
		if len(list) >= 64 {
			return nil, false
		}
		var s imapString
		if text[0] == '"' {
			s, text, ok = cutQuoted(text[1:])
		} else {
			s, text, ok = cutAtom(text)
		}
		if !ok || len(text) > 0 && text[0] != ' ' {
			return nil, false
		}
		list = append(list, s)
	}
}

// cutQuoted takes a quoted string whose opening quote is gone.
func cutQuoted(text []byte) (s imapString, rest []byte, ok bool) {
	var value, raw []byte
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '"':
			return imapString{string(value), string(raw)}, text[i+1:], true
		case '\\':
			i++
			if i == len(text) {
				return s, nil, false
			}
			if text[i] != '"' && text[i] != '\\' {
				raw = append(raw, '\\')
			}
			value = append(value, text[i])
			raw = append(raw, text[i])
		default:
			value = append(value, c)
			raw = append(raw, c)
		}
	}
	return s, nil, false
}

func cutAtom(text []byte) (s imapString, rest []byte, ok bool) {
	end := bytes.IndexByte(text, ' ')
	if end < 0 {
		end = len(text)
	}
	for _, c := range text[:end] {
		if c < ' ' || c == 0x7f || strings.IndexByte(`(){"`, c) >= 0 {
			return s, nil, false
		}
	}
	v := string(text[:end])
	return imapString{v, v}, text[end:], true
}
