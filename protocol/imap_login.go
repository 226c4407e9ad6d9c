package protocol

import "strconv"

// An imapLogin is a LOGIN: collected from the client in whatever spelling it
// chose, and where that has literals, replayed to the server literal by
// literal. A LOGIN on one line is passed as it came.
type imapLogin struct {
	tag string
	// args are the arguments that are complete.
	args []imapString
	// text are the command's lines, without literal marks and line ends;
	// literals[i] comes behind text[i].
	text     [][]byte
	literals [][]byte
	// left is what the client still owes of the last literal; total bounds
	// what is kept.
	left, total int
	// next is the text that the server is to get after its continuation.
	next int
}

// startLogin decides about LOGIN's first line.
func (c *imapConversation) startLogin(cmd *imapCommand) Step {
	if !c.mayAuth() {
		return c.refuseAuth(cmd)
	}
	args, ok := imapStrings(cmd.args)
	if cmd.literal.present {
		if !ok || len(args) > 1 || (len(cmd.args) > 0 && cmd.args[len(cmd.args)-1] != ' ') {
			return c.desync()
		}
		c.login = &imapLogin{tag: cmd.tag, args: args, total: cmd.size}
		head := append([]byte(cmd.tag+" LOGIN "), cmd.args...)
		return c.collectLiteral(cmd.size, head, cmd.literal)
	}
	if !ok || len(args) != 2 {
		return c.bad(cmd, "LOGIN takes a name and a password.")
	}
	step, ok := c.hold(func() *Credential { return c.loginCredential(args) })
	if !ok {
		return c.withheld(step, cmd.tag, cmd.size)
	}
	if step, ok = c.reach(cmd.tag); !ok {
		return step
	}
	c.sendsCredential(cmd.tag, "LOGIN")
	return Step{Take: cmd.size, Forward: true}
}

// sendsCredential notes that what the guard let pass goes to the server now.
func (c *imapConversation) sendsCredential(tag, verb string) {
	c.ask = imapAsk{}
	c.judged = true
	c.mute = true
	if tag != "" {
		c.pending = append(c.pending, imapPending{tag, verb})
	}
}

// loginCredential names both readings of a quoted name whose escapes servers
// read differently.
func (c *imapConversation) loginCredential(args []imapString) *Credential {
	return &Credential{
		Mechanism:  "LOGIN",
		Identities: identities(c.set.MasterSeparator, args[0].value, args[0].raw),
		Secret:     []byte(args[1].value),
	}
}

// withheld is what comes of a credential that did not get a Pass: the question
// itself, or with the guard's answer in hand, the refusal.
func (c *imapConversation) withheld(step Step, tag string, size int) Step {
	if step.Do == Hold {
		return step
	}
	v := c.ask.verdict
	c.ask = imapAsk{}
	c.login, c.auth = nil, nil
	step = refuseIMAP(v, tag)
	step.Take = size
	return step
}

// refuseIMAP words a verdict. A guarded login is answered by BYE, after which
// clients try again later with the password they have; a tagged NO makes many
// of them ask for a new one.
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

// collect takes the rest of a LOGIN with literals.
func (c *imapConversation) collect(data []byte) Step {
	l := c.login
	if l.left > 0 {
		if len(data) == 0 {
			return Step{Do: More}
		}
		n := min(len(data), l.left)
		last := len(l.literals) - 1
		l.literals[last] = append(l.literals[last], data[:n]...)
		l.left -= n
		l.ended()
		return Step{Take: n}
	}
	line, step := c.cutLine(data, MaxLine)
	if line == nil {
		return step
	}
	return c.collectLine(line)
}

// collectLine takes the line behind a literal: the rest of the command, or
// another literal's announcement.
func (c *imapConversation) collectLine(line []byte) Step {
	l := c.login
	head, lit, ok := cutIMAPLiteral(line[:len(line)-2])
	if !ok || len(head) > 0 && head[0] != ' ' {
		return c.desync()
	}
	more, ok := imapStrings(head)
	count := len(l.args) + len(more)
	if lit.present {
		if !ok || count != 1 || !quotesBalanced(head) {
			return c.desync()
		}
		return c.collectLiteral(len(line), head, lit)
	}
	if !ok || count != 2 {
		c.login = nil
		return c.bad(&imapCommand{tag: l.tag, size: len(line)}, "LOGIN takes a name and a password.")
	}
	args := append(l.args[:len(l.args):len(l.args)], more...)
	step, ok := c.hold(func() *Credential { return c.loginCredential(args) })
	if !ok {
		return c.withheld(step, l.tag, len(line))
	}
	if step, ok = c.reach(l.tag); !ok {
		return step
	}
	l.text = append(l.text, head)
	c.sendsCredential(l.tag, "LOGIN")
	return Step{Take: len(line), ToServer: c.replayLogin()}
}

// collectLiteral begins the next literal.
func (c *imapConversation) collectLiteral(n int, head []byte, lit imapLiteral) Step {
	l := c.login
	if lit.size > MaxLine || l.total+len(head)+int(lit.size) > MaxLine {
		return c.tooLong()
	}
	l.total += len(head) + int(lit.size)
	l.left = int(lit.size)
	l.text = append(l.text, append([]byte(nil), head...))
	l.literals = append(l.literals, make([]byte, 0, l.left))
	l.ended()
	step := Step{Take: n}
	if lit.sync {
		step.ToClient = []byte("+ OK\r\n")
	}
	return step
}

// ended makes a literal that is complete an argument.
func (l *imapLogin) ended() {
	if l.left == 0 {
		v := string(l.literals[len(l.literals)-1])
		l.args = append(l.args, imapString{v, v})
	}
}

// replayLogin gives what the server gets next: up to a literal for which it
// must be asked, or all the rest where it takes literals unasked (RFC 7888).
func (c *imapConversation) replayLogin() []byte {
	l := c.login
	var out []byte
	for {
		if l.next > 0 {
			out = append(out, l.literals[l.next-1]...)
		}
		out = append(out, l.text[l.next]...)
		l.next++
		if l.next == len(l.text) {
			return append(out, "\r\n"...)
		}
		size := len(l.literals[l.next-1])
		unasked := c.offers("LITERAL+") || c.offers("LITERAL-") && size <= 4096
		out = append(out, '{')
		out = strconv.AppendInt(out, int64(size), 10)
		if unasked {
			out = append(out, '+')
		}
		out = append(out, "}\r\n"...)
		if !unasked {
			return out
		}
	}
}

// replayed tells whether the whole command is with the server.
func (l *imapLogin) replayed() bool { return l.next == len(l.text) }
