package protocol

import (
	"bytes"
	"strings"
)

// What we say ourselves: the greeting, last sentences, and what is answered
// before the dial or before TLS.

// sayIMAP composes last sentences. UNAVAILABLE (RFC 5530) keeps clients from
// asking for a new password.
func sayIMAP(w Word, host string) []byte {
	text := [...]string{
		SayBanned:    "[UNAVAILABLE] Too many failures from your address, try again later.",
		SayBusy:      "[UNAVAILABLE] Too many connections, try again later.",
		SayNoServer:  "[UNAVAILABLE] The mail server cannot be reached, try again later.",
		SayTimeout:   "Disconnected for inactivity.",
		SayShutdown:  "[UNAVAILABLE] Restarting, try again at once.",
		SayViolation: "Protocol violation.",
	}[w]
	return []byte("* BYE " + text + "\r\n")
}

// imapWords say what a login needs. A guarded login is answered by BYE, after
// which clients try again later with the password they have; a tagged NO makes
// many of them ask for a new one.
var imapWords = &loginWords{
	protocol:    "imap",
	verb:        "AUTHENTICATE",
	refuse:      refuseIMAP,
	garbled:     func(tag string) string { return tag + " BAD Invalid response to the mechanism.\r\n" },
	noMechanism: func(tag string) string { return tag + " NO [CANNOT] Unsupported authentication mechanism.\r\n" },
	command:     func(tag, mech string) []byte { return []byte(tag + " AUTHENTICATE " + mech + "\r\n") },
	challenge:   plusChallenge,
	response:    lineResponse,
	abort:       "*\r\n",
	gone:        sayIMAP(SayNoServer, ""),
	tooMany:     []byte("* BYE Too many refused logins.\r\n"),
}

// plusChallenge is a challenge in IMAP and POP3.
func plusChallenge(base64 string) []byte { return []byte("+ " + base64 + "\r\n") }

// lineResponse is a response in IMAP and POP3.
func lineResponse(base64 []byte) []byte { return append(bytes.Clone(base64), "\r\n"...) }

// refuseIMAP words a verdict.
func refuseIMAP(v Verdict, tag string) Step {
	switch v {
	case Repeated:
		return Step{ToClient: []byte(tag + " NO [AUTHENTICATIONFAILED] Authentication failed.\r\n")}
	case Guarded:
		return Step{
			ToClient: []byte("* BYE [UNAVAILABLE] Temporary authentication failure, try again later.\r\n"),
			Do:       End,
			Why:      "login is guarded",
		}
	case Banned:
		return Step{ToClient: sayIMAP(SayBanned, ""), Do: End, Why: "banned"}
	}
	return Step{ToClient: []byte(tag + " NO [UNAVAILABLE] Temporary authentication failure, try again later.\r\n")}
}

// greeting composes the first line. While nothing is known of the server it
// names no capabilities where the client could get them from the server.
func (c *imapConversation) greeting() []byte {
	code := ""
	if len(c.set.Offer.Capabilities) > 0 || c.answersFromOffer() {
		code = "[CAPABILITY " + strings.Join(c.offered(), " ") + "] "
	}
	return []byte("* OK " + code + c.host() + " ready.\r\n")
}

// offered are the capabilities as we tell them ourselves.
func (c *imapConversation) offered() []string {
	words := c.set.Offer.Capabilities
	if len(words) == 0 {
		words = []string{"IMAP4rev1"}
	}
	return c.editCapabilities(words)
}

func (c *imapConversation) capability(cmd *imapCommand) Step {
	return Step{Take: cmd.size, ToClient: []byte("* CAPABILITY " +
		strings.Join(c.offered(), " ") + "\r\n" + cmd.tag + " OK CAPABILITY completed.\r\n")}
}

// id passes on an ID that only says who the client is. Dovecot believes fields
// that begin with x- from a trusted network, such as x-originating-ip, and we
// are in one: such a command is answered by us and never passed, and so is one
// with literals or with anything else that is not plain to read.
func (c *imapConversation) id(cmd *imapCommand) Step {
	answer := "* ID NIL\r\n" + cmd.tag + " OK ID completed.\r\n"
	if cmd.literal.present {
		return c.startSkip(cmd, &imapSkip{goOn: true, answer: answer})
	}
	if c.answersFromOffer() || foreignID(cmd.args) {
		return Step{Take: cmd.size, ToClient: []byte(answer)}
	}
	return c.forward(cmd.tag, cmd.verb, cmd.size)
}

// foreignID tells whether an ID's arguments must not pass.
func foreignID(args []byte) bool {
	args = bytes.Trim(args, " ")
	if len(args) >= 2 && args[0] == '(' && args[len(args)-1] == ')' {
		args = args[1 : len(args)-1]
	}
	list, ok := imapStrings(args)
	for _, s := range list {
		if strings.HasPrefix(strings.ToLower(s.value), "x-") {
			return true
		}
	}
	return !ok
}

func (c *imapConversation) startTLS(cmd *imapCommand) Step {
	if c.secure {
		return c.bad(cmd, "TLS is already active.")
	}
	if c.set.TLS != TLSStartTLS {
		return c.bad(cmd, "TLS is not available here.")
	}
	return Step{
		Take:     cmd.size,
		ToClient: []byte(cmd.tag + " OK Begin TLS negotiation now.\r\n"),
		Do:       StartTLS,
	}
}
