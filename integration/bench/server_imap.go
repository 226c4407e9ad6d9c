package main

import (
	"errors"
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
			if args, err = l.literals(args); err == nil {
				err = s.imapLogin(l, tag, strings.Contains(args, wrongPassword))
			}
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
			return errors.Join(l.write("* BYE Logging out\r\n"+tag+" OK Logout completed.\r\n"), l.flush())
		default:
			err = l.write(tag + " OK done.\r\n")
		}
		if err != nil {
			return err
		}
	}
}

// literals completes a command that ends in literals, as nginx sends LOGIN.
func (l *lines) literals(args string) (string, error) {
	for {
		i := strings.LastIndexByte(args, '{')
		if i < 0 || !strings.HasSuffix(args, "}") {
			return args, nil
		}
		if !strings.HasSuffix(args, "+}") {
			if err := l.write("+ OK\r\n"); err != nil {
				return "", err
			}
		}
		// The octets hold no line end, so the next line is all of them.
		more, err := l.next()
		if err != nil {
			return "", err
		}
		args = args[:i] + string(more)
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
	if err := l.flush(); err != nil {
		return err
	}
	if _, err := c.Write(bulk); err != nil {
		return err
	}
	return l.write(")\r\n" + tag + " OK Fetch completed.\r\n")
}
