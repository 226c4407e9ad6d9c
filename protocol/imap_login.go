package protocol

import (
	"bytes"
	"strconv"
)

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

// loginCredential names both readings of a quoted name whose escapes servers
// read differently.
func (c *imapConversation) loginCredential(args []imapString) *Credential {
	return &Credential{
		Mechanism:  "LOGIN",
		Identities: identities(c.set.MasterSeparator, args[0].value, args[0].raw),
		Secret:     []byte(args[1].value),
	}
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
		if step.Do != Hold {
			c.login = nil
		}
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

// authenticate decides about AUTHENTICATE's line (RFC 9051 section 6.2.2).
func (c *imapConversation) authenticate(cmd *imapCommand) Step {
	if !c.mayAuth() {
		return c.refuseAuth(cmd)
	}
	if cmd.literal.present {
		return c.desync()
	}
	mech, initial, has := bytes.Cut(cmd.args, []byte(" "))
	if len(mech) == 0 || len(mech) > 64 || !atomic(mech) {
		return c.bad(cmd, "AUTHENTICATE takes a mechanism.")
	}
	return c.startAuth(cmd.tag, string(mech), initial, has, cmd.size)
}

// response decides about the client's next line in an exchange.
func (c *imapConversation) response(data []byte) Step {
	line, step := c.cutLine(data, MaxAuthLine)
	if line == nil {
		return step
	}
	return c.respond(line[:len(line)-2], len(line))
}

// continued takes the server's "+" line.
func (c *imapConversation) continued(line []byte) Step {
	if c.login != nil && !c.login.replayed() {
		return Step{Take: len(line), ToServer: c.replayLogin()}
	}
	return c.challenged(len(line))
}
