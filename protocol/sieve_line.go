package protocol

import (
	"bytes"
	"strconv"
	"strings"
)

// A sieveState says what there is of a command or reply that may hold strings
// over several lines.
type sieveState uint8

const (
	sieveWhole sieveState = iota
	sievePart
	// sieveBad: it is not to be understood; size is that of its first line if
	// nothing of what follows depends on it, else 0.
	sieveBad
)

// A sieveCommand is a command with its arguments (RFC 5804 section 4).
type sieveCommand struct {
	// verb is in upper case.
	verb string
	// args are the strings and numbers behind it. They alias the data.
	args [][]byte
	// size counts all octets, with the last CRLF.
	size int
}

// parseSieveCommand reads a command from the beginning of data.
func parseSieveCommand(data []byte) (cmd sieveCommand, state sieveState) {
	if bytes.IndexByte(data, '\n') < 0 {
		return cmd, sievePart // cheap, however slowly the bytes come
	}
	end := bytes.IndexAny(data, " \r\n")
	cmd.verb = strings.ToUpper(string(data[:min(end, 40)]))
	args, size, state := sieveStrings(data[end:])
	cmd.args = args
	if cmd.size = end + size; size == 0 {
		cmd.size = 0
	}
	if state == sieveWhole && (end == 0 || end > 40 || !atomic(data[:end])) {
		state = sieveBad
	}
	return cmd, state
}

// sieveStrings reads strings, each with a blank before it, up to a CRLF.
// Literals of a client are {n+} only.
func sieveStrings(data []byte) (list [][]byte, size int, state sieveState) {
	at := 0
	for {
		rest := data[at:]
		blanks := len(rest) - len(bytes.TrimLeft(rest, " "))
		at += blanks
		rest = rest[blanks:]
		switch {
		case len(rest) == 0 || len(rest) == 1 && rest[0] == '\r':
			return nil, 0, sievePart
		case rest[0] == '\r' && rest[1] == '\n':
			return list, at + 2, sieveWhole
		case blanks == 0 || len(list) >= 16:
			return sieveBroken(data, at)
		}
		value, n, state := sieveString(rest)
		if state == sievePart {
			return nil, 0, sievePart
		}
		if state == sieveBad {
			return sieveBroken(data, at)
		}
		list = append(list, value)
		at += n
	}
}

// sieveBroken gives the size of the line on which reading failed at that place,
// unless it might announce a literal.
func sieveBroken(data []byte, at int) ([][]byte, int, sieveState) {
	end := bytes.IndexByte(data[at:], '\n')
	if end < 0 {
		return nil, 0, sievePart
	}
	line := data[at : at+end]
	if bytes.IndexByte(line, '{') >= 0 {
		return nil, 0, sieveBad
	}
	return nil, at + end + 1, sieveBad
}

// sieveString reads one quoted string, literal, or atom, with what it takes up.
func sieveString(data []byte) (value []byte, size int, state sieveState) {
	switch data[0] {
	case '"':
		return sieveQuoted(data)
	case '{':
		return sieveLiteral(data, "+}\r\n")
	}
	end := bytes.IndexAny(data, " \r")
	if end < 0 {
		if bytes.IndexByte(data, '\n') >= 0 {
			return nil, 0, sieveBad
		}
		return nil, 0, sievePart
	}
	if !atomic(data[:end]) {
		return nil, 0, sieveBad
	}
	return data[:end], end, sieveWhole
}

// sieveQuoted reads a quoted string. Only quote and backslash are escaped.
func sieveQuoted(data []byte) (value []byte, size int, state sieveState) {
	for i := 1; i < len(data); i++ {
		switch c := data[i]; c {
		case '"':
			return value, i + 1, sieveWhole
		case '\\':
			if i++; i == len(data) {
				return nil, 0, sievePart
			}
			if data[i] != '"' && data[i] != '\\' {
				return nil, 0, sieveBad
			}
			value = append(value, data[i])
		case 0, '\r', '\n':
			return nil, 0, sieveBad
		default:
			value = append(value, c)
		}
	}
	return nil, 0, sievePart
}

// sieveLiteral reads {n and what ends its announcement, and n octets.
func sieveLiteral(data []byte, ending string) (value []byte, size int, state sieveState) {
	i := 1
	for i < len(data) && data[i] >= '0' && data[i] <= '9' {
		i++
	}
	for k := 0; k < len(ending); k++ {
		if i+k == len(data) {
			return nil, 0, sievePart
		}
		if data[i+k] != ending[k] {
			return nil, 0, sieveBad
		}
	}
	n, err := strconv.ParseUint(string(data[1:i]), 10, 31)
	if err != nil {
		return nil, 0, sieveBad
	}
	start := i + len(ending)
	if uint64(len(data)-start) < n {
		return nil, 0, sievePart
	}
	return data[start : start+int(n)], start + int(n), sieveWhole
}

// parseSieveReply reads a final response of the server's: OK, NO or BYE, its
// code (RFC 5804 section 1.3) and its text, which may be a literal.
func parseSieveReply(data []byte) (r reply, size int, state sieveState) {
	end := bytes.IndexByte(data, '\n')
	if end < 0 {
		return r, 0, sievePart
	}
	size = end + 1
	text := strings.TrimRight(string(data[:end]), "\r")
	word, rest, _ := strings.Cut(text, " ")
	r.code = strings.ToUpper(word)
	if strings.HasPrefix(rest, "(") {
		code, after, _ := strings.Cut(rest[1:], ")")
		name, _, _ := strings.Cut(code, " ")
		r.enhanced = strings.ToUpper(strings.Trim(name, `"`))
		rest = strings.TrimLeft(after, " ")
	}
	if !strings.HasPrefix(rest, "{") {
		if value, _, state := sieveQuoted([]byte(rest)); state == sieveWhole && strings.HasPrefix(rest, `"`) {
			rest = string(value)
		}
		r.text = rest
		return r, size, sieveWhole
	}
	start := len(text) - len(rest)
	value, n, state := sieveLiteral(data[start:], "}\r\n")
	if state != sieveWhole {
		return r, 0, state
	}
	r.text = string(value)
	size = start + n
	if len(data) < size+2 {
		return r, 0, sievePart
	}
	return r, size + 2, sieveWhole
}

// sieveFinal tells whether a line begins a final response.
func sieveFinal(line []byte) bool {
	word, _, _ := strings.Cut(strings.TrimRight(string(line[:min(len(line), 8)]), "\r\n"), " ")
	word, _, _ = strings.Cut(word, "(")
	switch strings.ToUpper(word) {
	case "OK", "NO", "BYE":
		return true
	}
	return false
}

// sieveQuote makes a quoted string, of what a quoted string can hold.
func sieveQuote(text []byte) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range text {
		switch c {
		case 0, '\r', '\n':
			continue
		case '"', '\\':
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	b.WriteByte('"')
	return b.String()
}
