package protocol

import "bytes"

// A dataScanner finds the end of a message in what follows DATA. Only
// CRLF.CRLF ends it (RFC 5321 section 4.1.1.4). A dot that stands alone
// between any other line ends (a bare LF, a bare CR, NULs in between) may be
// an end to one server and none to the next; whoever sends it may be hiding a
// second message in the first ("SMTP smuggling", CVE-2023-51764 and its kin).
//
// It searches at memory speed, allocates nothing, and keeps no bytes: what may
// be the beginning of an end is not passed before it has been judged, which
// takes two bytes more at most.
type dataScanner struct {
	// before says what came before the next byte.
	before lineStart
}

// A lineStart says whether, and how, a line begins at a place.
type lineStart uint8

const (
	noStart   lineStart = iota // in the middle of a line
	afterCRLF                  // a line begins
	afterCR                    // behind a CR whose LF has not come (yet)
	afterOdd                   // behind a bare LF, or NULs at a line's start
)

// A dataVerdict says what scan has found.
type dataVerdict uint8

const (
	dataBody   dataVerdict = iota // message text
	dataEnd                       // the passed bytes complete the message
	dataUnsure                    // as dataBody; the rest needs more to be judged
	dataForged                    // a dot between odd line ends
)

// begin makes the scanner ready for a message. The DATA command's own line end
// counts: a message may be empty.
func (s *dataScanner) begin() { s.before = afterCRLF }

// scan judges data. The first n bytes may pass.
func (s *dataScanner) scan(data []byte) (n int, v dataVerdict) {
	for at := nextDot(data, -1); at >= 0; at = nextDot(data, at) {
		start := s.startAt(data, at)
		if start == noStart {
			continue
		}
		end := dotEnd(data[at:])
		if end == dotText {
			continue
		}
		switch {
		case end == dotUnsure:
			s.before = start
			return at, dataUnsure
		case end == dotCRLF && start == afterCRLF:
			return at + len(".\r\n"), dataEnd
		}
		return 0, dataForged
	}
	s.before = s.startAt(data, len(data))
	return len(data), dataBody
}

// startAt says what comes before data[at].
func (s *dataScanner) startAt(data []byte, at int) lineStart {
	nuls := false
	for at > 0 && data[at-1] == 0 {
		at--
		nuls = true
	}
	start := s.before
	if at > 0 {
		switch data[at-1] {
		case '\n':
			start = afterOdd
			if at > 1 && data[at-2] == '\r' || at == 1 && s.before == afterCR {
				start = afterCRLF
			}
		case '\r':
			start = afterCR
		default:
			start = noStart
		}
	}
	if nuls && start != noStart {
		return afterOdd
	}
	return start
}

// What stands behind a dot at a line's start.
const (
	dotText   = iota // more of the line
	dotCRLF          // CRLF
	dotOdd           // a bare CR, a bare LF, NUL
	dotUnsure        // not to be seen yet
)

// dotEnd judges what follows a dot, which is data[0].
func dotEnd(data []byte) int {
	if len(data) == 1 {
		return dotUnsure
	}
	switch data[1] {
	case '\n', 0:
		return dotOdd
	case '\r':
	default:
		return dotText
	}
	if len(data) == 2 {
		return dotUnsure
	}
	if data[2] == '\n' {
		return dotCRLF
	}
	return dotOdd
}

// nextDot gives the first dot behind a place that may begin a line: it is the
// first byte, or stands behind LF, CR or NUL. -1 means none.
func nextDot(data []byte, behind int) int {
	for at := behind + 1; ; at++ {
		dot := bytes.IndexByte(data[at:], '.')
		if dot < 0 {
			return -1
		}
		at += dot
		if at == 0 {
			return 0
		}
		if c := data[at-1]; c == '\n' || c == '\r' || c == 0 {
			return at
		}
		// No line begins within a row of dots, and a message of nothing else
		// would cost a search for each.
		for at+1 < len(data) && data[at+1] == '.' {
			at++
		}
	}
}
