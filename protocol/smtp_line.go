package protocol

import (
	"bytes"
	"fmt"
	"strings"
)

// formatLine is fmt.Sprintf with a line end, as bytes.
func formatLine(format string, args ...any) []byte {
	return append(fmt.Appendf(nil, format, args...), '\r', '\n')
}

// An smtpVerb is a command that we look at.
type smtpVerb uint8

const (
	cmdOther smtpVerb = iota // passes, whatever it is
	cmdEhlo
	cmdHelo
	cmdMail
	cmdRcpt
	cmdData
	cmdBdat
	cmdBdatLast
	cmdAuth
	cmdStartTLS
	cmdNoop
	cmdRset
	cmdHelp
	cmdVrfy
	cmdQuit
	cmdBarred  // never passes
	cmdHTTP    // another protocol's
	cmdMessage // the end of a message: no command, but it has a reply
)

// smtpVerbs are the words of commands. Barred ones would let a client speak
// with our voice (XCLIENT, XFORWARD), turn the direction round, or begin
// something that cannot be followed: Exchange's own login, TLS and binary
// commands.
var smtpVerbs = map[string]smtpVerb{
	"EHLO": cmdEhlo, "HELO": cmdHelo, "MAIL": cmdMail, "RCPT": cmdRcpt, "DATA": cmdData,
	"BDAT": cmdBdat, "AUTH": cmdAuth, "STARTTLS": cmdStartTLS, "NOOP": cmdNoop, "RSET": cmdRset,
	"HELP": cmdHelp, "VRFY": cmdVrfy, "QUIT": cmdQuit,

	"XCLIENT": cmdBarred, "XFORWARD": cmdBarred, "ATRN": cmdBarred, "TURN": cmdBarred,
	"LHLO": cmdBarred, "X-EXPS": cmdBarred, "X-ANONYMOUSTLS": cmdBarred, "XEXCH50": cmdBarred,
	"X-LINK2STATE": cmdBarred,

	"GET": cmdHTTP, "POST": cmdHTTP, "PUT": cmdHTTP, "HEAD": cmdHTTP, "OPTIONS": cmdHTTP,
	"DELETE": cmdHTTP, "PATCH": cmdHTTP, "TRACE": cmdHTTP, "CONNECT": cmdHTTP, "PRI": cmdHTTP,
}

// hiddenKeywords are the EHLO keywords that a client must not see: STARTTLS is
// ours to offer, the others are barred.
var hiddenKeywords = map[string]bool{
	"STARTTLS": true, "XCLIENT": true, "XFORWARD": true, "X-EXPS": true, "X-ANONYMOUSTLS": true,
	"XEXCH50": true, "X-LINK2STATE": true, "ATRN": true, "TURN": true,
}

// An smtpCommand is a command line of the client, or what remains of it while
// its reply is owed.
type smtpCommand struct {
	verb smtpVerb
	// args is what follows the verb; not kept while the reply is owed.
	args []byte
	// said is what a reply may quote: the sender or recipient, or the name in
	// EHLO; lower case.
	said string
	// octets is BDAT's size.
	octets uint64
}

// command reads a line without its line end. ok is false if it does not look
// like a command at all.
func smtpCommandOf(line []byte) (cmd smtpCommand, ok bool) {
	word := line
	if at := bytes.IndexAny(line, " \t"); at >= 0 {
		word, cmd.args = line[:at], bytes.Trim(line[at:], " \t")
	}
	if !isSMTPWord(word) {
		return cmd, false
	}
	cmd.verb = verbOf(word)
	switch cmd.verb {
	case cmdMail, cmdRcpt:
		cmd.said = smtpPath(cmd.args)
	case cmdVrfy:
		cmd.said = address(cmd.args)
	case cmdEhlo, cmdHelo:
		cmd.said = strings.ToLower(string(cmd.args[:min(len(cmd.args), maxRcpt)]))
	}
	return cmd, true
}

// verbOf looks a command's word up.
func verbOf(word []byte) smtpVerb {
	var upper [maxWord]byte
	for i, c := range word {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		upper[i] = c
	}
	return smtpVerbs[string(upper[:len(word)])]
}

// maxWord bounds a command's word, in bytes.
const maxWord = 32

// isSMTPWord tells whether word can be a command's: a letter, then letters,
// digits, hyphens, underscores. A line of base64, a header or a blank line
// cannot; it must not reach a server that might take it for an answer.
func isSMTPWord(word []byte) bool {
	if len(word) == 0 || len(word) > maxWord {
		return false
	}
	for i, c := range word {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || !isDigit(c) && c != '-' && c != '_') {
			return false
		}
	}
	return true
}

// smtpPath gives the address in "TO:<address> parameters".
func smtpPath(args []byte) string {
	_, path, ok := bytes.Cut(args, []byte{':'})
	if !ok {
		return ""
	}
	return address(bytes.TrimLeft(path, " \t"))
}

// address gives an address that may stand in angle brackets and have
// parameters behind it: lower case, bounded, without a source route (RFC 5321
// appendix C).
func address(path []byte) string {
	if len(path) > 0 && path[0] == '<' {
		path = path[1:]
		if end := closingBracket(path); end >= 0 {
			path = path[:end]
		}
	} else if end := bytes.IndexAny(path, " \t"); end >= 0 {
		path = path[:end]
	}
	if len(path) > 0 && path[0] == '@' {
		if _, last, ok := bytes.Cut(path, []byte{':'}); ok {
			path = last
		}
	}
	return strings.ToLower(string(path[:min(len(path), maxRcpt)]))
}

// closingBracket finds the ">" of a path; one in a quoted local part does not
// count.
func closingBracket(path []byte) int {
	quoted := false
	for i := 0; i < len(path); i++ {
		switch path[i] {
		case '\\':
			if quoted {
				i++
			}
		case '"':
			quoted = !quoted
		case '>':
			if !quoted {
				return i
			}
		}
	}
	return bytes.IndexByte(path, '>')
}

// A lineFault says what is wrong with a line.
type lineFault uint8

const (
	faultNone    lineFault = iota
	faultPart              // it has no end yet
	faultLong              // over its bound
	faultBare              // a bare CR or LF
	faultNUL               // a NUL: not SMTP
	faultControl           // another control character
	faultTLS               // a TLS record
)

// tlsHandshake begins every TLS handshake record, and no command.
const tlsHandshake = 0x16

// readSMTPLine gives the first line of data without its line end, and its
// whole size. Its bound in bytes depends on what it is for.
func readSMTPLine(data []byte, bound int) (line []byte, size int, fault lineFault) {
	if data[0] == tlsHandshake {
		return nil, 0, faultTLS
	}
	end := bytes.IndexByte(data, '\n')
	if end < 0 {
		switch {
		case bytes.IndexByte(data, 0) >= 0:
			return nil, 0, faultNUL
		case len(data) > bound:
			return nil, 0, faultLong
		}
		return nil, 0, faultPart
	}
	line, size = data[:end], end+1
	switch {
	case bytes.IndexByte(line, 0) >= 0:
		return nil, 0, faultNUL
	case size > bound:
		return nil, 0, faultLong
	case len(line) == 0 || line[len(line)-1] != '\r' || bytes.IndexByte(line, '\r') < len(line)-1:
		return nil, size, faultBare
	}
	line = line[:len(line)-1]
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, size, faultControl
		}
	}
	return line, size, faultNone
}
