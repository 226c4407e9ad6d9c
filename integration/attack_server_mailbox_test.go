package integration

import "strings"

// What a recorder says in POP3 and ManageSieve. Passwords that hold the word
// "right" are; those in base64 are not looked into, and wrong.

func answerPOP3(line string) string {
	verb, args, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "":
		return "+OK recorder ready\r\n"
	case "CAPA":
		return "+OK\r\nUSER\r\nSASL PLAIN LOGIN\r\nPIPELINING\r\nXCLIENT\r\nSTLS\r\n.\r\n"
	case "USER", "NOOP", "UTF8", "LANG", "XCLIENT", "XOIP":
		return "+OK\r\n"
	case "PASS", "APOP":
		if strings.Contains(args, "right") {
			return "+OK in\r\n"
		}
	case "AUTH":
		if _, initial, _ := strings.Cut(args, " "); initial == "" {
			return "+ \r\n"
		}
	case "QUIT":
		return "+OK Bye\r\n"
	case "*":
		return "-ERR aborted\r\n"
	}
	return "-ERR [AUTH] Authentication failed.\r\n"
}

func (c *recorded) answerSieve(line string) string {
	const capabilities = "\"IMPLEMENTATION\" \"recorder\"\r\n\"SASL\" \"PLAIN LOGIN\"\r\n\"UNAUTHENTICATE\"\r\n\"XCLIENT\" \"ADDR\"\r\n\"STARTTLS\"\r\n"
	if n, _ := c.octets(line); n > 0 {
		if c.begun != nil {
			line = *c.begun + line
		}
		c.begun = &line
		return silence // until the literal has come, and the line's end
	}
	if c.begun != nil {
		line = *c.begun + line
		c.begun = nil
	} else if line == "" {
		return capabilities + "OK \"recorder ready.\"\r\n"
	}
	verb, args, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case `"*"`:
		return "NO \"aborted\"\r\n"
	case "CAPABILITY":
		return capabilities + "OK\r\n"
	case "AUTHENTICATE":
		switch {
		case strings.Contains(args, "right"):
			return "OK \"in\"\r\n"
		case !strings.Contains(args, " "):
			return "\"\"\r\n"
		}
		return "NO \"Authentication failed.\"\r\n"
	case "LOGOUT":
		return "OK \"Bye\"\r\n"
	case "NOOP":
		return "OK (TAG {23}\r\nNO \"wrong\"\r\nNO \"wrong\"\r\n) \"done\"\r\n"
	case "PUTSCRIPT", "LISTSCRIPTS", "UNAUTHENTICATE", "XCLIENT":
		return "OK\r\n"
	}
	return "NO \"Authentication failed.\"\r\n"
}
