package protocol

import "bytes"

// What does not reach the server: refusals, and the ends that no dialogue
// survives.

// maxIMAPErrors is how many BADs of ours a client gets (Dovecot gives 3; a
// human who tries things by hand should get a little further).
const maxIMAPErrors = 10

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
