package protocol

import "bytes"

// An imapAuth is an AUTHENTICATE in progress (RFC 9051 section 6.2.2).
type imapAuth struct {
	tag  string
	mech string
	x    *exchange
	// read is set while the response that is shown has been read by x
	// already; is is what it was.
	read bool
	is   saslStep

	// own: we ask for the responses ourselves, the server being out of reach
	// until the guard has let the credential pass; responses are replayed
	// then, next by next.
	own       bool
	responses [][]byte
	next      int

	// aborting: the server has our "*" and owes the final reply, which is
	// swallowed; answer is what the client is told instead.
	aborting bool
	answer   Step
}

// startAuth decides about the AUTHENTICATE line.
func (c *imapConversation) startAuth(cmd *imapCommand) Step {
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
	a := &imapAuth{tag: cmd.tag, x: newExchange(string(mech), c.set.MasterSeparator)}
	a.mech = a.x.mech
	a.own = c.set.Soft && c.server == imapAlone
	if a.own && !c.mechanismAllowed(a.mech) {
		return Step{
			Take:     cmd.size,
			ToClient: []byte(cmd.tag + " NO [CANNOT] Unsupported authentication mechanism.\r\n"),
			Events:   []Event{{Kind: UnknownMechanism, Code: "NO [CANNOT]"}},
		}
	}
	switch a.x.begin(initial, has) {
	case saslGarbled, saslAbort:
		return c.garbledAuth(cmd.tag, cmd.size)
	case saslHold:
		step, ok := c.hold(a.x.credential)
		if !ok {
			return c.withheld(step, cmd.tag, cmd.size)
		}
		if step, ok = c.reach(cmd.tag); !ok {
			return step
		}
		a.own = false
		c.auth = a
		c.sendsCredential(cmd.tag, "AUTHENTICATE")
		return Step{Take: cmd.size, Forward: true}
	}
	if a.own {
		if has {
			a.responses = append(a.responses, bytes.Clone(initial))
		}
		c.auth = a
		return Step{Take: cmd.size, ToClient: a.prompt()}
	}
	if step, ok := c.reach(cmd.tag); !ok {
		return step
	}
	c.auth = a
	c.mute = true
	c.pending = append(c.pending, imapPending{cmd.tag, "AUTHENTICATE"})
	return Step{Take: cmd.size, Forward: true}
}

// garbledAuth answers an exchange that must not go on.
func (c *imapConversation) garbledAuth(tag string, size int) Step {
	c.auth = nil
	return Step{
		Take:     size,
		ToClient: []byte(tag + " BAD Invalid response to the mechanism.\r\n"),
		Events:   []Event{{Kind: AuthAborted, Code: "BAD"}},
	}
}

// prompt is the challenge that a server would send now, for PLAIN and LOGIN.
func (a *imapAuth) prompt() []byte {
	switch {
	case a.mech != "LOGIN":
		return []byte("+ \r\n")
	case len(a.responses) == 0:
		return []byte("+ VXNlcm5hbWU6\r\n") // "Username:"
	}
	return []byte("+ UGFzc3dvcmQ6\r\n") // "Password:"
}

// respond decides about the client's next line in an exchange: it is data,
// whatever it looks like.
func (c *imapConversation) respond(data []byte) Step {
	line, step := c.cutLine(data, MaxAuthLine)
	if line == nil {
		return step
	}
	a := c.auth
	text := line[:len(line)-2]
	if !a.read {
		// The same line is shown again after a verdict or a dial.
		a.read = true
		a.is = a.x.respond(text)
	}
	if a.is == saslHold {
		return c.holdResponse(line, text)
	}
	a.read = false
	switch a.is {
	case saslPass:
		if a.own {
			a.responses = append(a.responses, bytes.Clone(text))
			return Step{Take: len(line), ToClient: a.prompt()}
		}
		c.mute = true
		return Step{Take: len(line), Forward: true}
	case saslAbort:
		if !a.own {
			// The server's answer to it ends the command.
			c.mute = true
			return Step{Take: len(line), Forward: true}
		}
		fallthrough
	default:
		if a.own {
			return c.garbledAuth(a.tag, len(line))
		}
		answer := c.garbledAuth(a.tag, 0)
		c.auth = a
		return c.abortAuth(len(line), answer)
	}
}

// holdResponse asks the guard about the response that carries the credential,
// and passes it or breaks the exchange off.
func (c *imapConversation) holdResponse(line, text []byte) Step {
	a := c.auth
	step, ok := c.hold(a.x.credential)
	if !ok && step.Do == Hold {
		return step
	}
	if !ok {
		a.read = false
		refusal := c.withheld(step, a.tag, len(line))
		if a.own || refusal.Do == End {
			return refusal
		}
		refusal.Take = 0
		c.auth = a
		return c.abortAuth(len(line), refusal)
	}
	if step, ok = c.reach(a.tag); !ok {
		return step
	}
	a.read = false
	if a.own {
		a.responses = append(a.responses, bytes.Clone(text))
		c.sendsCredential(a.tag, "AUTHENTICATE")
		return Step{
			Take:     len(line),
			ToServer: []byte(a.tag + " AUTHENTICATE " + a.mech + "\r\n"),
		}
	}
	c.sendsCredential("", "")
	return Step{Take: len(line), Forward: true}
}

// abortAuth breaks off an exchange that the server is in, as the client could.
func (c *imapConversation) abortAuth(n int, answer Step) Step {
	c.auth.aborting = true
	c.auth.answer = answer
	c.mute = true
	return Step{Take: n, ToServer: []byte("*\r\n")}
}

// continued takes the server's "+" line.
func (c *imapConversation) continued(line []byte) Step {
	switch {
	case c.auth != nil && c.auth.aborting:
		return Step{Take: len(line)}
	case c.auth != nil && c.auth.own && c.auth.next < len(c.auth.responses):
		a := c.auth
		a.next++
		return Step{Take: len(line), ToServer: append(a.responses[a.next-1], "\r\n"...)}
	case c.login != nil && !c.login.replayed():
		return Step{Take: len(line), ToServer: c.replayLogin()}
	case c.auth != nil:
		c.mute = false
	}
	return Step{Take: len(line), Forward: true}
}
