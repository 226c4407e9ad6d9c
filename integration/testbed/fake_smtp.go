package testbed

import (
	"encoding/base64"
	"strings"
)

func (c *fakeConn) serveSMTP() {
	greeting := c.fake.script.Greeting
	if greeting == "" {
		greeting = "220 fake.example.test ESMTP"
	}
	for ok := c.say(greeting); ok; {
		var line string
		if line, ok = c.line(); ok {
			ok = c.smtp(line)
		}
	}
}

// smtp carries out a command and tells whether the connection goes on.
func (c *fakeConn) smtp(line string) bool {
	verb, rest, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		return c.say("250-fake.example.test\r\n250-PIPELINING\r\n250-SIZE 67108864\r\n" +
			"250-AUTH PLAIN LOGIN\r\n250-ENHANCEDSTATUSCODES\r\n250 8BITMIME")
	case "HELO":
		return c.say("250 fake.example.test")
	case "AUTH":
		return c.smtpAuth(rest)
	case "MAIL", "RSET", "NOOP":
		return c.say("250 2.0.0 Ok")
	case "RCPT":
		if c.fake.script.Rcpt == nil {
			return c.say("250 2.1.5 Ok")
		}
		return c.say(c.fake.script.Rcpt(between(rest, "<", ">")))
	case "DATA":
		return c.smtpData()
	case "QUIT":
		c.say("221 2.0.0 Bye")
		return false
	}
	return c.say("500 5.5.2 Error: command not recognized")
}

func (c *fakeConn) smtpAuth(args string) bool {
	mechanism, initial, _ := strings.Cut(args, " ")
	var login, password string
	switch strings.ToUpper(mechanism) {
	case "PLAIN":
		if initial == "" {
			initial = c.ask("")
		}
		login, password = splitPlain(initial)
	case "LOGIN":
		login, password = unbase64(c.ask("VXNlcm5hbWU6")), unbase64(c.ask("UGFzc3dvcmQ6"))
	default:
		return c.say("504 5.5.4 Unrecognized authentication type")
	}
	reply := c.judge(login, password, SMTPWrong)
	if reply == "" {
		c.reset()
		return false
	}
	return c.say(reply)
}

// ask sends a challenge and reads the response.
func (c *fakeConn) ask(challenge string) string {
	c.say("334 " + challenge)
	line, _ := c.line()
	return line
}

func (c *fakeConn) smtpData() bool {
	if !c.say("354 End data with <CR><LF>.<CR><LF>") {
		return false
	}
	for {
		line, ok := c.line()
		if !ok {
			return false
		}
		if line == "." {
			break
		}
	}
	if c.fake.script.End == nil {
		return c.say("250 2.0.0 Ok: queued as FAKE")
	}
	return c.say(c.fake.script.End())
}

// splitPlain takes apart a response of PLAIN (RFC 4616).
func splitPlain(response string) (login, password string) {
	parts := strings.SplitN(unbase64(response), "\x00", 3)
	if len(parts) != 3 {
		return "", ""
	}
	return parts[1], parts[2]
}

func unbase64(s string) string {
	text, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return ""
	}
	return string(text)
}

func between(s, open, end string) string {
	_, s, _ = strings.Cut(s, open)
	s, _, _ = strings.Cut(s, end)
	return s
}
