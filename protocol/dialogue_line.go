package protocol

import "bytes"

// Lines, as IMAP, POP3 and ManageSieve have them.

// serverLine cuts the server's first line off. Without ok the step says what
// to do instead.
func (d *dialogue) serverLine(data []byte) (line []byte, step Step, ok bool) {
	end := bytes.IndexByte(data, '\n')
	switch {
	case end >= MaxLine || end < 0 && len(data) >= MaxLine:
		return nil, d.babble(), false
	case end < 0:
		return nil, Step{Do: More}, false
	}
	return data[:end+1], Step{}, true
}

// A lineState says what there is of a line.
type lineState uint8

const (
	// lineWhole: a line with its CRLF.
	lineWhole lineState = iota
	// linePart: its end has not come.
	linePart
	// lineLong: it is over the bound.
	lineLong
	// lineBare: up to an LF, with a bare CR, LF or NUL in it, where servers
	// might see more lines or fewer.
	lineBare
	// lineTLS: a TLS handshake in clear text. Clients try TLS on any port;
	// that is no offence.
	lineTLS
)

// clientLine cuts the client's first line off. Only a whole or a bare one is
// given.
func (d *dialogue) clientLine(data []byte, limit int) ([]byte, lineState) {
	if !d.secure && len(data) > 1 && data[0] == 0x16 && data[1] == 3 {
		return nil, lineTLS
	}
	end := bytes.IndexByte(data, '\n')
	switch {
	case end >= limit || end < 0 && len(data) >= limit:
		return nil, lineLong
	case end < 0:
		return nil, linePart
	case end == 0 || data[end-1] != '\r' || bytes.IndexByte(data[:end], 0) >= 0 ||
		bytes.IndexByte(data[:end-1], '\r') >= 0:
		return data[:end+1], lineBare
	}
	return data[:end+1], lineWhole
}

// foreignLine tells whether a line is another protocol's. HTTP is told by its
// verb and target; an IMAP tag may well be the word GET.
func foreignLine(line []byte) bool {
	first, rest, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(" "))
	switch string(first) {
	case "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH", "PRI":
		return bytes.Contains(rest, []byte("HTTP/")) || bytes.HasPrefix(rest, []byte("/"))
	case "EHLO", "HELO", "LHLO":
		return true
	}
	return bytes.HasPrefix(first, []byte("SSH-2.0-"))
}
