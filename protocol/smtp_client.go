package protocol

import "bytes"

// Client decides about the client's bytes.
func (c *smtpConversation) Client(data []byte) Step {
	switch {
	case c.link == linkRefused:
		return Step{Take: len(data), Do: End, Why: "server closed the connection"}
	case c.opening():
		return c.whileOpening(data)
	case c.auth != nil && c.auth.state == authServer:
		// Nothing more is read before the credential is judged.
		return Step{Do: Wait}
	case len(data) == 0:
		return Step{Do: More}
	case c.octets > 0:
		return c.chunk(data)
	case c.inData:
		return c.message(data)
	}
	bound := MaxLine
	answering := c.auth != nil && c.auth.answering()
	if answering || len(data) >= 4 && bytes.EqualFold(data[:4], []byte("AUTH")) {
		bound = MaxAuthLine
	}
	line, size, fault := readSMTPLine(data, bound)
	switch {
	case fault == faultPart:
		return Step{Do: More}
	case fault == faultTLS:
		// A client that tries which port speaks TLS is no offender.
		return Step{Do: End, Why: "TLS handshake where there is none"}
	case fault == faultLong:
		return c.giveUp(LineTooLong, "500 5.5.2 %s Line too long", "line too long")
	case fault == faultNUL:
		return c.giveUp(ForeignProtocol, "", "not SMTP")
	case answering && fault == faultBare:
		// What follows may be the rest of a response, or not.
		return c.giveUp(BareNewline, "500 5.5.2 %s Bare <CR> or <LF> received", "bare CR or LF in a response")
	case answering:
		return c.response(line, size, fault)
	case fault == faultBare:
		return c.local(size, "500 5.5.2 Error: bare <CR> or <LF> received", BareNewline)
	case fault == faultControl:
		return c.local(size, "500 5.5.2 Error: bad syntax", BadCommand)
	}
	return c.command(line, size)
}

// command decides about a command line.
func (c *smtpConversation) command(line []byte, size int) Step {
	if wait, events := c.mustWait(line); wait {
		return Step{Do: Wait, Events: events}
	}
	cmd, ok := smtpCommandOf(line)
	if !ok {
		return c.noCommand(line, size)
	}
	c.halfDone = c.halfDone && cmd.verb == cmdOther
	if c.betweenChunks(cmd.verb) {
		return c.local(size, "503 5.5.1 Error: a message is being sent in chunks", "")
	}
	switch cmd.verb {
	case cmdHTTP:
		return c.giveUp(ForeignProtocol, "", "not SMTP")
	case cmdBarred:
		return c.local(size, "502 5.5.1 Error: command not implemented", "")
	case cmdStartTLS:
		return c.startTLS(cmd, size)
	case cmdAuth:
		return c.authCommand(cmd, line, size)
	case cmdBdat:
		return c.bdat(cmd, size)
	}
	if c.link == linkNone {
		if step, ours := c.own(cmd, line, size); ours {
			return step
		}
		if cmd.verb == cmdEhlo || cmd.verb == cmdHelo {
			c.noteHello(cmd)
		}
		return Step{Do: Dial}
	}
	if c.halfDone {
		return c.local(size, "501 5.7.0 Authentication aborted", "")
	}
	if cmd.verb == cmdMail && c.needsLogin() {
		return c.local(size, c.loginFirst(), "")
	}
	return c.forward(cmd, size)
}

// mustWait tells whether the next command has to wait for the reply to one
// before which nothing may be sent on (RFC 2920 section 3.1): whoever sends it
// all the same is told about, once; but monitors say EHLO and QUIT at once.
func (c *smtpConversation) mustWait(line []byte) (bool, []Event) {
	n := len(c.pending)
	if n == 0 {
		return false, nil
	}
	switch c.pending[n-1].verb {
	case cmdEhlo, cmdHelo:
		if bytes.EqualFold(line, []byte("QUIT")) {
			return true, nil
		}
		return true, c.noise(Pipelining, "")
	case cmdData:
		return true, c.noise(Pipelining, "")
	case cmdAuth, cmdQuit, cmdBdat:
		return true, nil
	}
	return n >= MaxPending, nil
}

// forward lets a command pass, and notes that its reply is owed.
func (c *smtpConversation) forward(cmd smtpCommand, size int) Step {
	cmd.args = nil
	c.pending = append(c.pending, cmd)
	return Step{Take: size, Forward: true}
}

// local answers a command ourselves, once everything before it is answered.
// k is the offence, "" if it is none.
func (c *smtpConversation) local(size int, text string, k Kind) Step {
	if len(c.pending) > 0 {
		return Step{Do: Wait}
	}
	step := Step{Take: size, ToClient: []byte(text + "\r\n"), Events: c.noise(k, "")}
	if text[0] != '5' {
		return step
	}
	c.errors++
	if c.errors >= maxOwnErrors {
		step.Events = append(step.Events, c.noise(TooManyErrors, "")...)
		step.ToClient = append(step.ToClient, formatLine("421 4.7.0 %s Too many errors", c.host())...)
		step.Do, step.Why = End, "too many errors"
	}
	return step
}

// giveUp ends a dialogue that cannot go on, with an event.
func (c *smtpConversation) giveUp(k Kind, text, why string) Step {
	step := Step{Events: c.noise(k, ""), Do: End, Why: why}
	if text == "" {
		step.ToClient = saySMTP(SayViolation, c.host())
	} else {
		step.ToClient = formatLine(text, c.host())
	}
	step.Outcome = c.auth.undecided()
	return step
}

// noCommand answers a line that cannot be a command. It does not reach the
// server: one that is out of step with us might take it for something else. A
// lone "*" is what some clients send after an exchange that is over.
func (c *smtpConversation) noCommand(line []byte, size int) Step {
	switch {
	case c.halfDone:
		return c.local(size, "501 5.7.0 Authentication aborted", "")
	case len(line) == 1 && line[0] == '*':
		return c.local(size, "500 5.5.2 Error: command not recognized", "")
	case len(line) > 0 && isHeaderWord(line):
		return c.giveUp(ForeignProtocol, "", "not SMTP")
	}
	return c.local(size, "500 5.5.2 Error: command not recognized", BadCommand)
}

// isHeaderWord tells whether a line begins as another protocol's does: no
// letter, or a header's name.
func isHeaderWord(line []byte) bool {
	c := line[0] | 0x20
	if c < 'a' || c > 'z' {
		return line[0] != ' ' && line[0] != '\t' && !isDigit(line[0])
	}
	word, _, _ := bytes.Cut(line, []byte{' '})
	return word[len(word)-1] == ':'
}

// startTLS answers STARTTLS, which is always ours: the server has its TLS, if
// any, from us.
func (c *smtpConversation) startTLS(cmd smtpCommand, size int) Step {
	switch {
	case c.secure:
		return c.local(size, "503 5.5.1 Error: TLS already active", "")
	case c.setup.TLS != TLSStartTLS:
		return c.local(size, "502 5.5.1 Error: command not implemented", "")
	case len(cmd.args) > 0:
		return c.local(size, "501 5.5.4 Syntax: no parameters allowed", "")
	}
	step := c.local(size, "220 2.0.0 Ready to start TLS", "")
	if step.Do == Continue {
		step.Do = StartTLS
	}
	return step
}
