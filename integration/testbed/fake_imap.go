package testbed

import "strings"

const fakeCapabilities = "CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID IDLE AUTH=PLAIN AUTH=LOGIN"

func (c *fakeConn) serveIMAP() {
	greeting := c.fake.script.Greeting
	if greeting == "" {
		greeting = "* OK [" + fakeCapabilities + "] fake ready."
	}
	for ok := c.say(greeting); ok; {
		var line string
		if line, ok = c.line(); ok {
			ok = c.imap(line)
		}
	}
}

// imap carries out a command and tells whether the connection goes on.
func (c *fakeConn) imap(line string) bool {
	tag, rest, _ := strings.Cut(line, " ")
	verb, args, _ := strings.Cut(rest, " ")
	switch strings.ToUpper(verb) {
	case "CAPABILITY":
		return c.say("* "+fakeCapabilities) && c.say(tag+" OK done.")
	case "ID":
		return c.say(`* ID ("name" "fake")`) && c.say(tag+" OK done.")
	case "NOOP", "SELECT":
		return c.say(tag + " OK done.")
	case "IDLE":
		if !c.say("+ idling") {
			return false
		}
		_, ok := c.line()
		return ok && c.say(tag+" OK done.")
	case "LOGIN":
		words := imapWords(args)
		if len(words) != 2 {
			return c.say(tag + " BAD two words are wanted")
		}
		return c.imapLogin(tag, words[0], words[1])
	case "AUTHENTICATE":
		return c.imapAuthenticate(tag, args)
	case "LOGOUT":
		c.say("* BYE Logging out")
		c.say(tag + " OK done.")
		return false
	}
	return c.say(tag + " BAD unknown command")
}

func (c *fakeConn) imapAuthenticate(tag, args string) bool {
	mechanism, initial, _ := strings.Cut(args, " ")
	if !strings.EqualFold(mechanism, "PLAIN") {
		return c.say(tag + " NO [ALERT] Unsupported authentication mechanism.")
	}
	if initial == "" {
		c.say("+ ")
		initial, _ = c.line()
	}
	login, password := splitPlain(initial)
	return c.imapLogin(tag, login, password)
}

func (c *fakeConn) imapLogin(tag, login, password string) bool {
	answer := c.judge(login, password, IMAPWrong)
	switch {
	case answer == "":
		c.reset()
		return false
	case strings.HasPrefix(answer, "* "):
		c.say(answer)
		return false
	}
	return c.say(tag + " " + answer)
}

// imapWords reads atoms and quoted strings.
func imapWords(s string) []string {
	var words []string
	for s = strings.TrimLeft(s, " "); s != ""; s = strings.TrimLeft(s, " ") {
		var word string
		if s[0] == '"' {
			word, s, _ = strings.Cut(s[1:], `"`)
		} else {
			word, s, _ = strings.Cut(s, " ")
		}
		words = append(words, word)
	}
	return words
}
