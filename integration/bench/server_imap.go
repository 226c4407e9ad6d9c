package main

import (
	"bytes"
	"fmt"
	"net"
	"strings"
)

const imapCapability = "CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+"

// imap is one IMAP connection. It calls itself Dovecot, because that is what
// the proxies are tuned for.
func (s *dummyServer) imap(c net.Conn, bulk []byte) error {
	l := newLines(c)
	if err := l.write("* OK [" + imapCapability + " AUTH=PLAIN] Dovecot (dummy) ready.\r\n"); err != nil {
		return err
	}
	for {
		line, err := l.next()
		if err != nil {
			return err
		}
		tag, rest, _ := strings.Cut(string(line), " ")
		verb, args, _ := strings.Cut(rest, " ")
		switch verb = strings.ToUpper(verb); verb {
		case "LOGIN":
			err = s.imapLogin(l, tag, strings.Contains(args, wrongPassword))
		case "AUTHENTICATE":
			if !strings.Contains(args, " ") {
				if err = l.write("+ \r\n"); err == nil {
					_, err = l.next()
				}
			}
			if err == nil {
				err = s.imapLogin(l, tag, false)
			}
		case "FETCH":
			err = imapFetch(l, c, tag, bulk)
		case "IDLE":
			if err = l.write("+ idling\r\n"); err == nil {
				_, err = l.next() // DONE
			}
			if err == nil {
				err = l.write(tag + " OK Idle completed.\r\n")
			}
		case "CAPABILITY":
			err = l.write("* " + imapCapability + " AUTH=PLAIN\r\n" + tag + " OK done.\r\n")
		case "ID":
			err = l.write("* ID (\"name\" \"Dovecot\")\r\n" + tag + " OK ID completed.\r\n")
		case "SELECT":
			err = l.write("* 1 EXISTS\r\n" + tag + " OK [READ-WRITE] done.\r\n")
		case "LOGOUT":
			return l.write("* BYE Logging out\r\n" + tag + " OK Logout completed.\r\n")
		default:
			err = l.write(tag + " OK done.\r\n")
		}
		if err != nil {
			return err
		}
	}
}

func (s *dummyServer) imapLogin(l *lines, tag string, wrong bool) error {
	if wrong {
		s.wrong.Add(1)
		return l.write(tag + " NO [AUTHENTICATIONFAILED] Authentication failed.\r\n")
	}
	s.logins.Add(1)
	return l.write(tag + " OK [" + imapCapability + "] Logged in\r\n")
}

// imapFetch gives one big message in as few system calls as the way allows.
func imapFetch(l *lines, c net.Conn, tag string, bulk []byte) error {
	if err := l.write(fmt.Sprintf("* 1 FETCH (BODY[] {%d}\r\n", len(bulk))); err != nil {
		return err
	}
	if _, err := c.Write(bulk); err != nil {
		return err
	}
	return l.write(")\r\n" + tag + " OK Fetch completed.\r\n")
}

// lines reads a connection line by line. Its buffer bounds a line.
type lines struct {
	c    net.Conn
	buf  []byte
	r, w int // what was read and not yet given out is buf[r:w]
}

func newLines(c net.Conn) *lines { return &lines{c: c, buf: make([]byte, 4096)} }

func (l *lines) write(s string) error {
	_, err := l.c.Write([]byte(s))
	return err
}

// next returns the next line without its end; it is valid until the next call.
func (l *lines) next() ([]byte, error) {
	for {
		if i := bytes.IndexByte(l.buf[l.r:l.w], '\n'); i >= 0 {
			line := l.buf[l.r : l.r+i]
			l.r += i + 1
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if l.r > 0 {
			l.w = copy(l.buf, l.buf[l.r:l.w])
			l.r = 0
		}
		if l.w == len(l.buf) {
			return nil, fmt.Errorf("a line of more than %d bytes", len(l.buf))
		}
		n, err := l.c.Read(l.buf[l.w:])
		if err != nil {
			return nil, err
		}
		l.w += n
	}
}

// skip throws away n octets and tells each piece to seen, if that is not nil.
func (l *lines) skip(n int, seen func(int)) error {
	buffered := min(n, l.w-l.r)
	l.r += buffered
	big := buffers.Get().(*[]byte)
	defer buffers.Put(big)
	for n -= buffered; n > 0; {
		got, err := l.c.Read((*big)[:min(n, len(*big))])
		if err != nil {
			return err
		}
		n -= got
		if seen != nil {
			seen(got)
		}
	}
	return nil
}

// data reads a message up to CRLF.CRLF. A client that waits for the reply has
// sent nothing behind it, so only the last five bytes are looked at.
func (l *lines) data() error {
	end := []byte("\r\n.\r\n")
	last := make([]byte, 0, 2*len(end))
	keep := func(b []byte) bool {
		last = append(last, b[max(0, len(b)-len(end)):]...)
		last = last[:copy(last, last[max(0, len(last)-len(end)):])]
		return bytes.Equal(last, end)
	}
	buffered := l.buf[l.r:l.w]
	l.r = l.w
	if keep(buffered) {
		return nil
	}
	big := buffers.Get().(*[]byte)
	defer buffers.Put(big)
	for {
		n, err := l.c.Read(*big)
		if err != nil {
			return err
		}
		if keep((*big)[:n]) {
			return nil
		}
	}
}
