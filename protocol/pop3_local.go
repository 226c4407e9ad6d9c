package protocol

import "strings"

// What we say ourselves in POP3.

// pop3Words say what a login needs. [SYS/TEMP] (RFC 3206) keeps clients from
// asking for a new password.
var pop3Words = &loginWords{
	protocol:    "pop3",
	verb:        "AUTH",
	refuse:      refusePOP3,
	garbled:     func(string) string { return "-ERR Invalid response to the mechanism.\r\n" },
	noMechanism: func(string) string { return "-ERR [AUTH] Unsupported authentication mechanism.\r\n" },
	command:     func(_, mech string) []byte { return []byte("AUTH " + mech + "\r\n") },
	challenge:   plusChallenge,
	response:    lineResponse,
	abort:       "*\r\n",
	gone:        sayPOP3(SayNoServer, ""),
	tooMany:     []byte("-ERR Too many refused logins.\r\n"),
}

// sayPOP3 composes last sentences.
func sayPOP3(w Word, host string) []byte {
	return []byte("-ERR " + [...]string{
		SayBanned:    "[SYS/TEMP] Too many failures from your address, try again later.",
		SayBusy:      "[SYS/TEMP] Too many connections, try again later.",
		SayNoServer:  "[SYS/TEMP] The mail server cannot be reached, try again later.",
		SayTimeout:   "Disconnected for inactivity.",
		SayShutdown:  "[SYS/TEMP] Restarting, try again at once.",
		SayViolation: "Protocol violation.",
	}[w] + "\r\n")
}

// refusePOP3 words a verdict.
func refusePOP3(v Verdict, _ string) Step {
	step := Step{ToClient: []byte("-ERR [SYS/TEMP] Temporary authentication failure, try again later.\r\n")}
	switch v {
	case Repeated:
		step.ToClient = []byte("-ERR [AUTH] Authentication failed.\r\n")
	case Guarded:
		step.Do = End
		step.Why = "login is guarded"
	case Banned:
		return Step{ToClient: sayPOP3(SayBanned, ""), Do: End, Why: "banned"}
	}
	return step
}

// refuseAuth answers a login that we take from nobody here.
func (c *pop3Conversation) refuseAuth(size int) Step {
	step := c.answer(size, "-ERR [AUTH] Log in over TLS only.\r\n")
	step.Events = []Event{{Kind: PlaintextAuth}}
	if c.set.NoAuth {
		step.ToClient = []byte("-ERR [AUTH] No logins here.\r\n")
		step.Events[0].Kind = AuthNotOffered
	}
	return step
}

// maxPOP3Errors is how many errors of ours a client gets.
const maxPOP3Errors = 10

// bad answers a command with an error. It never reaches the server.
func (c *pop3Conversation) bad(size int, text string) Step {
	c.errors++
	step := c.answer(size, "-ERR "+text+"\r\n")
	step.Events = []Event{{Kind: BadCommand}}
	if c.errors >= maxPOP3Errors {
		step.ToClient = append(step.ToClient, "-ERR Too many invalid commands.\r\n"...)
		step.Events = append(step.Events, Event{Kind: TooManyErrors})
		step.Do = End
		step.Why = "too many invalid commands"
	}
	return step
}

// capabilities is our answer to CAPA.
func (c *pop3Conversation) capabilities() string {
	lines := c.set.Offer.Capabilities
	if len(lines) == 0 {
		lines = []string{"TOP", "UIDL", "RESP-CODES", "PIPELINING", "USER"}
	}
	var b strings.Builder
	b.WriteString("+OK\r\n")
	for _, line := range lines {
		if line, keep := c.editCapability(line); keep {
			b.WriteString(line + "\r\n")
		}
	}
	if c.offersStartTLS() {
		b.WriteString("STLS\r\n")
	}
	b.WriteString(".\r\n")
	return b.String()
}

// editCapability gives a line of CAPA's reply as the client shall see it, if at
// all: STLS is ours; USER and SASL say what we would do with a login.
func (c *pop3Conversation) editCapability(line string) (string, bool) {
	word, rest, _ := strings.Cut(strings.ToUpper(line), " ")
	switch word {
	case "STLS", "XCLIENT", "XOIP":
		return "", false
	case "USER":
		return line, c.mayAuth()
	case "SASL":
		if !c.mayAuth() {
			return "", false
		}
		if !c.set.Soft || c.server == serverOpen {
			return line, true
		}
		out := "SASL"
		for _, mech := range strings.Fields(rest) {
			if softMechanism(mech) {
				out += " " + mech
			}
		}
		return out, out != "SASL"
	}
	return line, true
}
