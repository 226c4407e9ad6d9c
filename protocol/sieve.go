package protocol

import "bytes"

// managesieve is RFC 5804.
//
// The dialogue is followed also behind a login, because UNAUTHENTICATE (RFC
// 5804 section 2.14) leads back before it.
var managesieve = &Protocol{
	Name:  "managesieve",
	ALPN:  "managesieve",
	Scope: "auth",
	New:   newSieve,
	Probe: newSieveProbe,
	Say:   saySieve,
}

// A sieveConversation follows one ManageSieve dialogue.
type sieveConversation struct {
	dialogue

	// repeat: TLS came up, and the capabilities are due without being asked
	// for (RFC 5804 section 2.2).
	repeat bool

	// Behind a login both directions are followed by from and to; ending: the
	// oldest command's final response is being passed, but for a literal's
	// end.
	loggedIn bool
	from, to sieveFrame
	ending   bool
}

func newSieve(set Setup) Conversation {
	return &sieveConversation{dialogue: dialogue{set: set, words: sieveWords, secure: set.Secure}}
}

// Start greets with the capabilities.
func (c *sieveConversation) Start() Step {
	return Step{ToClient: c.capabilities(c.host() + " ready.")}
}

// Secured forgets all that was said in clear text.
func (c *sieveConversation) Secured() {
	*c = sieveConversation{dialogue: dialogue{set: c.set, words: sieveWords, secure: true}, repeat: true}
}

// Phase tells whose turn it is.
func (c *sieveConversation) Phase() Phase {
	if c.loggedIn && len(c.pending) == 0 {
		return LoggedIn
	}
	return c.phase()
}

// Client decides about the client's bytes.
func (c *sieveConversation) Client(data []byte) Step {
	switch {
	case c.repeat:
		c.repeat = false
		return Step{ToClient: c.capabilities("TLS negotiation successful.")}
	case c.mute, c.server == serverGreets:
		return Step{Do: Wait}
	case c.loggedIn:
		return c.framedClient(data)
	case len(data) == 0:
		return Step{Do: More}
	case c.auth != nil:
		return c.response(data)
	}
	line, lineIs := c.clientLine(data, MaxAuthLine)
	if lineIs == lineTLS {
		return Step{Do: End, Why: "client began TLS on a clear-text port"}
	}
	cmd, state := parseSieveCommand(data)
	if step, ok := c.readable(data, cmd.size, state); !ok {
		return step
	}
	if len(c.pending) > 0 && (!c.passes(&cmd) || len(c.pending) >= MaxPending) {
		// Our own answers and credentials must not overtake a reply.
		return Step{Do: Wait}
	}
	if foreignLine(line) {
		return Step{
			ToClient: []byte("BYE \"This is a ManageSieve server.\"\r\n"),
			Events:   []Event{{Kind: ForeignProtocol}},
			Do:       End,
			Why:      "client speaks another protocol",
		}
	}
	if state == sieveBad {
		step := c.bad(cmd.size, "Not a command.")
		if lineIs == lineBare {
			step.Events[0].Kind = BareNewline
		}
		return step
	}
	return c.command(&cmd)
}

// readable tells whether what the client sent can be decided about: it is there
// as a whole, or is a line that can be refused as one.
func (c *sieveConversation) readable(data []byte, size int, state sieveState) (Step, bool) {
	switch {
	case state == sievePart && len(data) >= MaxAuthLine, size > MaxAuthLine:
		return Step{
			ToClient: []byte("BYE \"Line or string too long.\"\r\n"),
			Events:   []Event{{Kind: LineTooLong}},
			Outcome:  c.outstanding(),
			Do:       End,
			Why:      "client sent too long a line or string",
		}, false
	case state == sievePart:
		return Step{Do: More}, false
	case state == sieveBad && size == 0:
		return c.desync(), false
	}
	return Step{}, true
}

// desync ends a dialogue in which we can no longer be sure what the server
// would take for commands and what for data.
func (c *sieveConversation) desync() Step {
	return Step{
		ToClient: []byte("BYE \"That string cannot be understood.\"\r\n"),
		Events:   []Event{{Kind: BadCommand}},
		Outcome:  c.outstanding(),
		Do:       End,
		Why:      "client sent a string that servers may read differently",
	}
}

// passes tells whether a command goes to the server as it is, without a
// question to the guard or an answer of ours.
func (c *sieveConversation) passes(cmd *sieveCommand) bool {
	switch cmd.verb {
	case "CAPABILITY", "NOOP", "LOGOUT":
		return c.server == serverOpen && len(cmd.args) == 0
	}
	return false
}

// command decides about one command before login.
func (c *sieveConversation) command(cmd *sieveCommand) Step {
	switch cmd.verb {
	case "AUTHENTICATE":
		return c.authenticate(cmd)
	case "STARTTLS":
		return c.startTLS(cmd)
	case "CAPABILITY":
		if len(cmd.args) > 0 {
			return c.bad(cmd.size, "CAPABILITY takes no arguments.")
		}
		if c.answersFromOffer() {
			return Step{Take: cmd.size, ToClient: c.capabilities("CAPABILITY completed.")}
		}
	case "NOOP":
		if len(cmd.args) > 0 || c.ownNoop() {
			// A server repeats the tag in its reply, as a literal if it
			// came as one: lines that the client chose, and could have
			// taken for the reply to its next login.
			c.noops++
			return c.noop(cmd)
		}
	case "LOGOUT":
		if len(cmd.args) > 0 {
			return c.bad(cmd.size, "LOGOUT takes no arguments.")
		}
		if c.server == serverAlone {
			return Step{
				Take:     cmd.size,
				ToClient: []byte("OK \"Logout completed.\"\r\n"),
				Do:       End,
				Why:      "client logged out",
			}
		}
	default:
		// Among them XCLIENT, by which Dovecot learns a client's address.
		return c.bad(cmd.size, "Unknown command, or not before login.")
	}
	return c.forward("", cmd.verb, cmd.size)
}

// authenticate decides about AUTHENTICATE: a mechanism, and perhaps an initial
// response.
func (c *sieveConversation) authenticate(cmd *sieveCommand) Step {
	if !c.mayAuth() {
		return c.refuseAuth(cmd.size)
	}
	if len(cmd.args) == 0 || len(cmd.args) > 2 || len(cmd.args[0]) == 0 ||
		len(cmd.args[0]) > 64 || !atomic(cmd.args[0]) {
		return c.bad(cmd.size, "AUTHENTICATE takes a mechanism.")
	}
	var initial []byte
	has := len(cmd.args) == 2
	if has {
		// An empty string is an empty response; "=" has no meaning here.
		if initial = cmd.args[1]; len(initial) == 0 {
			initial = []byte("=")
		} else if string(initial) == "=" {
			return c.garbled("", cmd.size)
		}
	}
	return c.startAuth("", string(cmd.args[0]), initial, has, cmd.size)
}

// response decides about the client's next string in an exchange.
func (c *sieveConversation) response(data []byte) Step {
	text, size, state := sieveResponse(data)
	if step, ok := c.readable(data, size, state); !ok {
		return step
	}
	if state == sieveBad {
		text = []byte("!") // no base64: the exchange is broken off
	}
	return c.respond(text, size)
}

// sieveResponse reads a string on a line of its own.
func sieveResponse(data []byte) (text []byte, size int, state sieveState) {
	if bytes.IndexByte(data, '\n') < 0 {
		return nil, 0, sievePart
	}
	if data[0] != '"' && data[0] != '{' {
		_, size, state = sieveBroken(data, 0)
		return nil, size, state
	}
	text, size, state = sieveString(data)
	if state == sieveBad {
		_, size, state = sieveBroken(data, 0)
		return nil, size, state
	}
	switch rest := data[size:]; {
	case state == sievePart, len(rest) < 2 && bytes.HasPrefix([]byte("\r\n"), rest):
		return nil, 0, sievePart
	case !bytes.HasPrefix(rest, []byte("\r\n")):
		return nil, 0, sieveBad
	}
	return text, size + 2, sieveWhole
}

func (c *sieveConversation) startTLS(cmd *sieveCommand) Step {
	switch {
	case c.secure:
		return c.bad(cmd.size, "TLS is already active.")
	case !c.offersStartTLS():
		return c.bad(cmd.size, "TLS is not available here.")
	}
	return Step{
		Take:     cmd.size,
		ToClient: []byte("OK \"Begin TLS negotiation now.\"\r\n"),
		Do:       StartTLS,
	}
}
