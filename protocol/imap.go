package protocol

// imap is RFC 9051, RFC 3501 and what servers make of them.
//
// Before login the conversation understands every command it lets pass. What
// it answers itself is in imap_local.go and imap_refuse.go, LOGIN and
// AUTHENTICATE are in imap_login.go, the server's side in imap_reply.go. After
// login it goes blind where that is safe, else imap_framed.go follows both
// sides.
var imap = &Protocol{
	Name:  "imap",
	ALPN:  "imap",
	Scope: "auth",
	New:   newIMAP,
	Probe: newIMAPProbe,
	Say:   sayIMAP,
}

// An imapConversation follows one IMAP dialogue.
type imapConversation struct {
	dialogue

	// caps are the server's capabilities as it last told them to us, nil
	// while the offer is all we know.
	caps []string
	// dovecot is set once a greeting shows that family.
	dovecot bool
	// serverLiteral is how many octets of a literal the server still owes.
	serverLiteral int64
	// reused is set while a command waits whose tag was pending.
	reused bool

	// What the client is in the middle of, beside a SASL exchange.
	skip  *imapSkip
	login *imapLogin

	loggedIn bool
	blind    bool
	framed   *imapFramed
}

func newIMAP(set Setup) Conversation {
	return &imapConversation{dialogue: dialogue{set: set, words: imapWords, secure: set.Secure}}
}

// Start greets.
func (c *imapConversation) Start() Step {
	return Step{ToClient: c.greeting()}
}

// Client decides about the client's bytes.
func (c *imapConversation) Client(data []byte) Step {
	switch {
	case c.framed != nil:
		return c.framed.client(data)
	case c.mute, c.server == serverGreets:
		return Step{Do: Wait}
	case c.skip != nil:
		return c.skipOn(data)
	case c.login != nil:
		return c.collect(data)
	case c.auth != nil:
		return c.response(data)
	}
	line, step := c.cutLine(data, MaxAuthLine)
	if line == nil {
		return step
	}
	cmd, ok := parseIMAPCommand(line)
	if len(line) > MaxLine && cmd.verb != "AUTHENTICATE" {
		return c.tooLong()
	}
	if !ok || foreignLine(line) {
		return c.unparsable(&cmd, line)
	}
	return c.command(&cmd)
}

// command decides about one parsed command line.
func (c *imapConversation) command(cmd *imapCommand) Step {
	if c.tagPending(cmd.tag) {
		c.reused = true
	}
	if !c.passes(cmd) || c.reused || len(c.pending) >= MaxPending {
		// Our own answers and credentials must not overtake a reply.
		if len(c.pending) > 0 {
			return Step{Do: Wait}
		}
	}
	if c.reused {
		// The client could make us take the reply to one command for
		// the reply to another.
		c.reused = false
		if cmd.literal.present {
			return c.desync()
		}
		return c.bad(cmd, "That tag is still in use.")
	}
	switch cmd.verb {
	case "LOGIN":
		return c.startLogin(cmd)
	case "AUTHENTICATE":
		return c.authenticate(cmd)
	case "ID":
		return c.id(cmd)
	}
	if cmd.literal.present {
		// Servers skip such a command to the end of its line and take
		// the literal for commands, or they do not.
		return c.desync()
	}
	return c.simple(cmd)
}

// simple decides about a command without literals and credentials: it is ours
// to answer, or the server's.
func (c *imapConversation) simple(cmd *imapCommand) Step {
	switch cmd.verb {
	case "CAPABILITY":
		if c.answersFromOffer() {
			return c.capability(cmd)
		}
	case "NOOP":
		if c.ownNoop() {
			c.noops++
			return Step{Take: cmd.size, ToClient: []byte(cmd.tag + " OK NOOP completed.\r\n")}
		}
	case "LOGOUT":
		if c.server == serverAlone {
			return Step{
				Take:     cmd.size,
				ToClient: []byte("* BYE Logging out.\r\n" + cmd.tag + " OK Logout completed.\r\n"),
				Do:       End,
				Why:      "client logged out",
			}
		}
	case "LANGUAGE": // RFC 5255: valid before login.
		if c.answersFromOffer() {
			return c.bad(cmd, "Not available here.")
		}
	case "STARTTLS":
		return c.startTLS(cmd)
	case "COMPRESS":
		return Step{Take: cmd.size, ToClient: []byte(cmd.tag + " NO Log in first.\r\n")}
	case "UNAUTHENTICATE":
		return c.bad(cmd, "Not logged in.")
	default:
		if c.server == serverAlone {
			return c.bad(cmd, "Unknown command, or not before login.")
		}
	}
	return c.forward(cmd.tag, cmd.verb, cmd.size)
}

// passes tells whether a command goes to the server as it is, without a
// question to the guard or an answer of ours.
func (c *imapConversation) passes(cmd *imapCommand) bool {
	if c.server != serverOpen || cmd.literal.present {
		return false
	}
	switch cmd.verb {
	case "LOGIN", "AUTHENTICATE", "STARTTLS", "COMPRESS", "UNAUTHENTICATE":
		return false
	case "ID":
		return !foreignID(cmd.args)
	}
	return true
}

// Secured forgets all that was said in clear text (RFC 9051 section 6.2.1).
func (c *imapConversation) Secured() {
	*c = imapConversation{dialogue: dialogue{set: c.set, words: imapWords, secure: true}}
}

// Phase tells whose turn it is.
func (c *imapConversation) Phase() Phase {
	switch {
	case c.blind:
		return LoggedIn
	case c.framed != nil:
		return c.framed.phase()
	}
	return c.phase()
}

func (c *imapConversation) tagPending(tag string) bool {
	for i := range c.pending {
		if c.pending[i].tag == tag {
			return true
		}
	}
	return false
}
