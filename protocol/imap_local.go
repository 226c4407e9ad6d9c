package protocol

import (
	"bytes"
	"strings"
)

// What we say ourselves: the greeting, what is answered before the dial or
// before TLS, refusals, and the ends that no dialogue survives.

// maxIMAPErrors is how many BADs of ours a client gets (Dovecot gives 3; a
// human who tries things by hand should get a little further).
const maxIMAPErrors = 10

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

// refuseAuth answers a login that we take from nobody here. The octets of
// non-synchronising literals are on their way and are swallowed; at a
// synchronising one the client waits, and is answered at once.
func (c *imapConversation) refuseAuth(cmd *imapCommand) Step {
	answer := cmd.tag + " NO [PRIVACYREQUIRED] Log in over TLS only.\r\n"
	event := Event{Kind: PlaintextAuth}
	if c.set.NoAuth {
		answer = cmd.tag + " NO [CONTACTADMIN] No logins here.\r\n"
		event.Kind = AuthNotOffered
	}
	if cmd.literal.present && !cmd.literal.sync {
		return c.startSkip(cmd, &imapSkip{answer: answer, events: []Event{event}})
	}
	return Step{Take: cmd.size, ToClient: []byte(answer), Events: []Event{event}}
}

// An imapSkip is a command with literals that is swallowed and then answered.
type imapSkip struct {
	// goOn: a synchronising literal is asked for, so that the client gets to
	// the end of its command; else the answer comes in its place.
	goOn   bool
	answer string
	events []Event
	// left is what remains of the literal, total what there was in all.
	left, total int64
}

func (c *imapConversation) startSkip(cmd *imapCommand, s *imapSkip) Step {
	c.skip = s
	return c.skipLiteral(cmd.size, cmd.literal)
}

func (c *imapConversation) skipLiteral(n int, lit imapLiteral) Step {
	s := c.skip
	s.left = lit.size
	s.total += lit.size
	if s.total > MaxLine {
		return c.tooLong()
	}
	step := Step{Take: n}
	if lit.sync {
		step.ToClient = []byte("+ OK\r\n")
	}
	return step
}

func (c *imapConversation) skipOn(data []byte) Step {
	s := c.skip
	if s.left > 0 {
		if len(data) == 0 {
			return Step{Do: More}
		}
		n := min(int64(len(data)), s.left)
		s.left -= n
		return Step{Take: int(n)}
	}
	line, step := c.cutLine(data, MaxLine)
	if line == nil {
		return step
	}
	s.total += int64(len(line))
	_, lit, ok := cutIMAPLiteral(line[:len(line)-2])
	if !ok {
		return c.desync()
	}
	if lit.present && (s.goOn || !lit.sync) {
		return c.skipLiteral(len(line), lit)
	}
	c.skip = nil
	return Step{Take: len(line), ToClient: []byte(s.answer), Events: s.events}
}

// bad answers a command with BAD. It never reaches the server.
func (c *imapConversation) bad(cmd *imapCommand, text string) Step {
	tag := cmd.tag
	if tag == "" {
		tag = "*"
	}
	c.errors++
	step := Step{
		Take:     cmd.size,
		ToClient: []byte(tag + " BAD " + text + "\r\n"),
		Events:   []Event{{Kind: BadCommand}},
	}
	if c.errors >= maxIMAPErrors {
		step.ToClient = append(step.ToClient, "* BYE Too many invalid commands.\r\n"...)
		step.Events = append(step.Events, Event{Kind: TooManyErrors})
		step.Do = End
		step.Why = "too many invalid commands"
	}
	return step
}

// unparsable answers a line that is no command.
func (c *imapConversation) unparsable(cmd *imapCommand, line []byte) Step {
	if cmd.literal.present {
		return c.desync()
	}
	if foreignLine(line) {
		return Step{
			ToClient: []byte("* BYE This is an IMAP server.\r\n"),
			Events:   []Event{{Kind: ForeignProtocol}},
			Do:       End,
			Why:      "client speaks another protocol",
		}
	}
	if len(c.pending) > 0 {
		return Step{Do: Wait}
	}
	return c.bad(cmd, "Not a command.")
}

// desync ends a dialogue in which we can no longer be sure what the server
// would take for commands and what for data.
func (c *imapConversation) desync() Step {
	return Step{
		ToClient: []byte("* BYE That literal cannot be understood.\r\n"),
		Outcome:  c.outstanding(),
		Events:   []Event{{Kind: BadCommand}},
		Do:       End,
		Why:      "client sent a literal where none can be",
	}
}

func (c *imapConversation) tooLong() Step {
	return Step{
		ToClient: []byte("* BYE Line or literal too long.\r\n"),
		Outcome:  c.outstanding(),
		Events:   []Event{{Kind: LineTooLong}},
		Do:       End,
		Why:      "client sent too long a line or literal",
	}
}

// cutLine takes the first line, with its CRLF, off what the client sent. With
// nil the step says what to do instead.
func (c *imapConversation) cutLine(data []byte, limit int) ([]byte, Step) {
	line, state := c.clientLine(data, limit)
	switch state {
	case lineTLS:
		return nil, Step{Do: End, Why: "client began TLS on a clear-text port"}
	case lineLong:
		return nil, c.tooLong()
	case linePart:
		return nil, Step{Do: More}
	case lineBare:
		return nil, c.bareNewline(line)
	}
	return line, Step{}
}

// bareNewline refuses a line that servers might split in another way. None of
// it passes, so the dialogue may go on, unless a literal is announced.
func (c *imapConversation) bareNewline(line []byte) Step {
	text := bytes.TrimRight(line, "\r\n")
	if _, lit, ok := cutIMAPLiteral(text); lit.present || !ok || c.midCommand() {
		step := c.desync()
		step.Events = []Event{{Kind: BareNewline}}
		return step
	}
	if foreignLine(line) {
		return c.unparsable(&imapCommand{}, line)
	}
	if len(c.pending) > 0 {
		return Step{Do: Wait}
	}
	cmd := imapCommand{size: len(line)}
	if tag, _, _ := bytes.Cut(text, []byte(" ")); validIMAPTag(tag) {
		cmd.tag = string(tag)
	}
	step := c.bad(&cmd, "Lines end in CR LF, and hold no other CR, LF or NUL.")
	step.Events[0] = Event{Kind: BareNewline}
	return step
}

// midCommand tells whether the client is behind a command's first line.
func (c *imapConversation) midCommand() bool {
	return c.skip != nil || c.login != nil || c.auth != nil
}
