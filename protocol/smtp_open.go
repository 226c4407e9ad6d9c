package protocol

// whileOpening lets the client wait until the server is ready. The line that
// completed a collected login is kept.
func (c *smtpConversation) whileOpening(data []byte) Step {
	a := c.auth
	if a == nil || a.state != authDecided || len(data) == 0 {
		return Step{Do: Wait}
	}
	line, size, _ := readSMTPLine(data, MaxAuthLine)
	a.keep(line)
	a.atCommand, a.state = false, authServer
	return Step{Take: size}
}

// greeting swallows the server's greeting: ours has been given.
func (c *smtpConversation) greeting(data []byte) Step {
	r, n, state := readSMTPReply(data)
	if step, done := c.unread(state); done {
		return step
	}
	switch {
	case r.code[0] != '2':
		return c.refused("CONNECT", r, data[:n])
	case c.setup.XClient != nil:
		return c.introduce(n)
	}
	return c.welcomed(n)
}

// welcomed goes on behind the greeting that is for the client.
func (c *smtpConversation) welcomed(n int) Step {
	if c.hello == nil {
		return c.ready(n)
	}
	c.link = linkReplay
	return Step{Take: n, ToServer: c.hello}
}

// replayed swallows the reply to the EHLO that we have answered ourselves.
func (c *smtpConversation) replayed(data []byte) Step {
	r, n, state := readSMTPReply(data)
	if step, done := c.unread(state); done {
		return step
	}
	if r.code[0] != '2' {
		return c.refused("EHLO", r, data[:n])
	}
	c.learn(ehloLines(data[:n])[1:])
	return c.ready(n)
}

// ready hands the server over to the client, or to a collected login.
func (c *smtpConversation) ready(n int) Step {
	c.link = linkReady
	step := Step{Take: n}
	if c.auth != nil && c.auth.collecting {
		c.pending = append(c.pending, smtpCommand{verb: cmdAuth})
		step.ToServer = c.auth.nextLine()
	}
	return step
}

// refused gives a server's refusal to talk as the reply to the command that
// waits for it.
func (c *smtpConversation) refused(command string, r reply, whole []byte) Step {
	step := Step{Take: len(whole), Forward: true, Do: End, Why: "server refused: " + r.label()}
	if c.auth != nil && c.auth.outstanding {
		step.Outcome, step.Code = Neutral, r.label()
	}
	if k := c.table.lookup("smtp", command, r).kind; k != "" {
		step.Events = c.event(k, r.label())
	}
	if r.code != "421" {
		step.ToClient = saySMTP(SayNoServer, c.host())
	}
	c.link, c.auth = linkRefused, nil
	return step
}
