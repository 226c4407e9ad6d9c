package protocol

// Server decides about the server's bytes.
func (c *smtpConversation) Server(data []byte) Step {
	switch {
	case len(data) == 0:
		return Step{Do: More}
	case c.link == linkNone || c.link == linkRefused:
		return Step{Take: len(data)}
	case c.link == linkGreet:
		return c.greeting(data)
	case c.link == linkIntroduce:
		return c.introduced(data)
	case c.link == linkXClient:
		return c.xclientTold(data)
	case c.link == linkReplay:
		return c.replayed(data)
	case c.auth != nil && c.auth.state == authHeld:
		// The guard is thinking. What the server says meanwhile can only be a
		// farewell; it settles the credential once that is on its way.
		if len(data) > maxReply {
			return c.serverFault("server talks out of turn")
		}
		return Step{Do: More}
	case c.auth != nil && !c.auth.atCommand && !c.offHook():
		return c.authReply(data)
	case len(c.pending) == 0:
		return c.unsolicited(data)
	}
	switch c.pending[0].verb {
	case cmdEhlo, cmdHelo:
		return c.helloReply(data)
	case cmdMail, cmdRcpt, cmdVrfy, cmdData, cmdBdat, cmdBdatLast, cmdMessage:
		return c.decidingReply(data)
	}
	return c.passLine(data)
}

// offHook tells whether an exchange is with us alone.
func (c *smtpConversation) offHook() bool { return c.auth.collecting && !c.auth.outstanding }

// unread gives the step for a reply that could not be read; done is false if it
// could.
func (c *smtpConversation) unread(state replyState) (step Step, done bool) {
	switch state {
	case replyPart:
		return Step{Do: More}, true
	case replyInvalid:
		return c.serverFault("server does not speak SMTP, or its reply is too long"), true
	}
	return Step{}, false
}

// serverFault ends a dialogue that the server has left.
func (c *smtpConversation) serverFault(why string) Step {
	step := Step{ToClient: saySMTP(SayNoServer, c.host()), Do: End, Why: why}
	step.Outcome = c.auth.undecided()
	c.link, c.auth = linkRefused, nil
	return step
}

// unsolicited passes a reply that nobody asked for: the server's farewell
// (Postfix 421, Stalwart 455).
func (c *smtpConversation) unsolicited(data []byte) Step {
	r, n, state := readSMTPReply(data)
	if step, done := c.unread(state); done {
		return step
	}
	if r.code[0] == '3' {
		return c.serverFault("server asks for what nobody offered")
	}
	c.stray = true
	step := Step{Take: n, Forward: true, Events: c.replyEvent("*", r, "")}
	if c.inData {
		// Nobody knows whether it reads the rest of the message as commands.
		step.Do, step.Why = End, "server answered before the end of the message: "+r.label()
	}
	return step
}

// replyEvent looks a refusal up; said is what the reply may quote.
func (c *smtpConversation) replyEvent(command string, r reply, said string) []Event {
	label := r.label()
	switch command {
	case "EHLO", "MAIL", "RCPT":
		r.read()
		r.text = withoutEcho(r.text, said)
	}
	switch m := c.table.lookup("smtp", command, r); m.kind {
	case "":
		return nil
	case InvalidRcpt, RelayDenied, SenderRejected, HeloRejected, ClientRejected, ListedClient, ContentRejected:
		return c.event(m.kind, label)
	default:
		return c.noise(m.kind, label)
	}
}

// answered takes the oldest command off the queue: r is its reply. After a 421
// the server closes (RFC 5321 section 3.8); nothing more needs to be said.
func (c *smtpConversation) answered(r reply) smtpCommand {
	head := c.pending[0]
	c.pending = append(c.pending[:0], c.pending[1:]...)
	c.stray = c.stray || r.code == "421"
	return head
}

// passLine passes one line of a reply that decides nothing.
func (c *smtpConversation) passLine(data []byte) Step {
	line, size := replyLine(data)
	switch {
	case size == 0 && len(data) > maxReply:
		return c.serverFault("server's line is too long")
	case size == 0:
		return Step{Do: More}
	case !isReplyLine(line):
		return c.serverFault("server does not speak SMTP")
	}
	step := Step{Take: size, Forward: true}
	if len(line) > 3 && line[3] == '-' {
		return step
	}
	r, _, _ := readSMTPReply(data[:size])
	verb := c.answered(r).verb
	if verb == cmdQuit {
		step.Do, step.Why = End, "client quit"
		return step
	}
	if r.code[0] == '3' {
		// It begins something that we could not follow.
		return c.serverFault("server's reply " + r.code + " to a command that has none such")
	}
	if verb == cmdRset && r.code[0] == '2' {
		c.rcpts, c.chunks = nil, false
	}
	step.Events = c.replyEvent("*", r, "")
	if verb == cmdOther && len(step.Events) == 0 && (r.code == "500" || r.code == "502") {
		step.Events = c.noise(BadCommand, r.label())
	}
	return step
}

// helloReply passes the reply to EHLO or HELO, edited.
func (c *smtpConversation) helloReply(data []byte) Step {
	r, n, state := readSMTPReply(data)
	if step, done := c.unread(state); done {
		return step
	}
	head := c.answered(r)
	c.offersChunking = false // unless an EHLO reply says so again
	if r.code[0] != '2' {
		return Step{Take: n, Forward: true, Events: c.replyEvent("EHLO", r, head.said)}
	}
	c.rcpts = nil
	if head.verb == cmdEhlo {
		if edited := c.editReply(data[:n]); edited != nil {
			return Step{Take: n, ToClient: edited}
		}
	}
	return Step{Take: n, Forward: true}
}

// decidingReply passes the reply to a command that concerns a mail transaction.
func (c *smtpConversation) decidingReply(data []byte) Step {
	r, n, state := readSMTPReply(data)
	if step, done := c.unread(state); done {
		return step
	}
	head := c.answered(r)
	step := Step{Take: n, Forward: true}
	good := r.code[0] == '2'
	switch head.verb {
	case cmdMail:
		step.Progress = good
		if good {
			c.rcpts = nil
		} else {
			step.Events = c.replyEvent("MAIL", r, head.said)
		}
	case cmdRcpt:
		c.rcptReply(&step, head.said, r)
	case cmdVrfy:
		// It asks for the same thing as RCPT.
		step.Events = rcptEvents(c.replyEvent("RCPT", r, head.said), head.said)
	case cmdData:
		if r.code == "354" {
			c.inData = true
			c.scanner.begin()
			return step
		}
		step.Events = c.replyEvent("DATA", r, "")
	case cmdBdat:
		if c.chunks = good; !good {
			c.rcpts = nil
			c.chunkRefused(&step, r)
		}
	case cmdBdatLast, cmdMessage:
		c.messageReply(&step, head.verb, r)
	}
	if r.code[0] == '3' {
		return c.serverFault("server's reply " + r.code + " to a command that has none such")
	}
	if c.octets > 0 {
		// Nobody knows whether it reads the rest of the chunk as commands.
		step.Do, step.Why = End, "server answered before the end of the chunk: "+r.label()
	}
	return step
}

// rcptReply notes a recipient that was accepted, or tells why it was not.
func (c *smtpConversation) rcptReply(step *Step, rcpt string, r reply) {
	if r.code[0] == '2' {
		if len(c.rcpts) < maxRcpts {
			c.rcpts = append(c.rcpts, rcpt)
		}
		return
	}
	step.Events = rcptEvents(c.replyEvent("RCPT", r, rcpt), rcpt)
}

// rcptEvents names the recipient in events about it.
func rcptEvents(events []Event, rcpt string) []Event {
	for i := range events {
		events[i].Recipient = rcpt
	}
	return events
}

// messageReply settles a whole message.
func (c *smtpConversation) messageReply(step *Step, verb smtpVerb, r reply) {
	rcpts := c.rcpts
	c.rcpts, c.chunks = nil, false
	if r.code[0] != '2' {
		step.Events = c.replyEvent("MESSAGE", r, "")
		if verb == cmdBdatLast {
			c.chunkRefused(step, r)
		}
		return
	}
	step.Progress = true
	for _, rcpt := range rcpts {
		step.Events = append(step.Events, Event{Kind: GoodRcpt, Login: c.login, Recipient: rcpt, Code: r.label()})
	}
}

// chunkRefused ends the connection where a server does not know BDAT after all:
// it has read, or will read, the octets as commands. Any other refusal has
// taken the octets first (RFC 3030 section 2).
func (c *smtpConversation) chunkRefused(step *Step, r reply) {
	switch r.code {
	case "500", "501", "502", "504", "521":
		step.Do, step.Why = End, "server refused BDAT: "+r.label()
	}
}
