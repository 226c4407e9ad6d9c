package protocol

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
