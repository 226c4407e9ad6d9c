package protocol

import (
	"bytes"
	"strings"
)

// maxReply bounds a reply that decides something and so must be read whole, in
// bytes.
const maxReply = MaxLine

// A replyState says how far a reply has been read.
type replyState uint8

const (
	replyPart    replyState = iota // more lines must come
	replyWhole                     // complete
	replyInvalid                   // not SMTP, or over maxReply
)

// readSMTPReply reads a reply (RFC 5321 section 4.2), of one line or several,
// from the start of data and tells how long it is. The last line's code
// counts, and the first enhanced code. The text is read when it is looked at.
func readSMTPReply(data []byte) (r reply, n int, state replyState) {
	for {
		line, size := replyLine(data[n:])
		if size == 0 {
			if len(data) >= maxReply {
				return r, 0, replyInvalid
			}
			return r, 0, replyPart
		}
		n += size
		if n > maxReply || !isReplyLine(line) {
			return r, 0, replyInvalid
		}
		if r.enhanced == "" {
			enhanced, _ := cutEnhanced(line[min(4, len(line)):])
			r.enhanced = codeString(enhanced)
		}
		if len(line) == 3 || line[3] == ' ' {
			r.code, r.lines = codeString(line[:3]), data[:n]
			return r, n, replyWhole
		}
	}
}

// read takes the text out of the lines.
func (r *reply) read() {
	if r.lines == nil {
		return
	}
	var text strings.Builder
	for rest := r.lines; len(rest) > 0; {
		line, size := replyLine(rest)
		rest = rest[size:]
		_, words := cutEnhanced(line[min(4, len(line)):])
		if text.Len() > 0 {
			text.WriteByte('\n')
		}
		text.Write(words)
	}
	r.text, r.lines = text.String(), nil
}

// codeString makes a string of a code. Those of most replies are at hand: a
// line that says that all is well costs no allocation.
func codeString(code []byte) string {
	switch string(code) {
	case "":
		return ""
	case "250":
		return "250"
	case "354":
		return "354"
	case "2.0.0":
		return "2.0.0"
	case "2.1.0":
		return "2.1.0"
	case "2.1.5":
		return "2.1.5"
	}
	return string(code)
}

// replyLine gives the first line of data without its end, and its whole size;
// 0 if it is not complete.
func replyLine(data []byte) (line []byte, size int) {
	at := bytes.IndexByte(data, '\n')
	if at < 0 {
		return nil, 0
	}
	return bytes.TrimSuffix(data[:at], []byte{'\r'}), at + 1
}

// isReplyLine tells whether line begins as a reply must: three digits, then a
// blank, a hyphen or nothing.
func isReplyLine(line []byte) bool {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) {
		return false
	}
	return len(line) == 3 || line[3] == ' ' || line[3] == '-'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// cutEnhanced takes the enhanced status code (RFC 2034) off a reply's text.
// Where none stands in front, qmail's "(#5.7.1)" at the end is taken.
func cutEnhanced(text []byte) (enhanced, rest []byte) {
	word, rest, _ := bytes.Cut(text, []byte{' '})
	if isEnhanced(word) {
		return word, rest
	}
	if at := bytes.LastIndex(text, []byte("(#")); at >= 0 {
		if code, _, ok := bytes.Cut(text[at+2:], []byte{')'}); ok && isEnhanced(code) {
			return code, text
		}
	}
	return nil, text
}

// isEnhanced tells whether word is class.subject.detail.
func isEnhanced(word []byte) bool {
	if len(word) < 5 || len(word) > 9 || word[1] != '.' || word[0] != '2' && word[0] != '4' && word[0] != '5' {
		return false
	}
	subject, detail, ok := bytes.Cut(word[2:], []byte{'.'})
	return ok && areDigits(subject) && areDigits(detail)
}

func areDigits(text []byte) bool {
	for _, c := range text {
		if !isDigit(c) {
			return false
		}
	}
	return len(text) > 0
}

// withoutEcho takes out of a reply's texts what the client has said itself,
// so that a recipient called relay@… or "user unknown"@… decides nothing.
//
// An address without a domain is left: a short one would take the server's own
// words with it.
func withoutEcho(text, said string) string {
	if strings.Contains(said, "@") {
		lower := strings.ToLower(text)
		for from := 0; ; {
			at := strings.Index(lower[from:], said)
			if at < 0 || len(lower) != len(text) {
				break
			}
			text = text[:from+at] + text[from+at+len(said):]
			lower = lower[:from+at] + lower[from+at+len(said):]
			from += at
		}
	}
	for from := 0; ; {
		open := strings.IndexByte(text[from:], '<')
		if open < 0 {
			return text
		}
		open += from
		end := strings.IndexByte(text[open:], '>')
		if end < 0 {
			return text
		}
		text = text[:open+1] + text[open+end:]
		from = open + 2
	}
}
