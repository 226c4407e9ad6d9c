package protocol

// imap is RFC 9051, RFC 3501 and what servers make of them.
//
// Before login the conversation understands every command it lets pass. What
// it answers itself is in imap_local.go, LOGIN in imap_login.go, AUTHENTICATE
// in imap_auth.go, the server's side in imap_reply.go. After login it goes
// blind where that is safe, else imap_framed.go follows both sides.
var imap = &Protocol{
	Name:  "imap",
	ALPN:  "imap",
	Scope: "auth",
	New:   newIMAP,
	Probe: newIMAPProbe,
	Say:   sayIMAP,
}

// imapServer is where the connection to the server stands.
type imapServer uint8

const (
	// imapAlone: not connected.
	imapAlone imapServer = iota
	// imapGreets: connected; the server's greeting is due.
	imapGreets
	// imapOpen: the server takes commands.
	imapOpen
)

// An imapConversation follows one IMAP dialogue.
type imapConversation struct {
	set    Setup
	secure bool

	server imapServer
	// caps are the server's capabilities as it last told them to us, nil
	// while the offer is all we know.
	caps []string
	// dovecot is set once a greeting shows that family.
	dovecot bool
	// bye is set when the server has said BYE: it will close.
	bye bool
	// serverLiteral is how many octets of a literal the server still owes.
	serverLiteral int64

	// pending are the commands that are with the server, oldest first.
	pending []imapPending
	// reused is set while a command waits whose tag was pending.
	reused bool
	// waiting is the tag of the command that asked for the dial.
	waiting string
	// mute: the server must speak before more of the client is looked at. It
	// is set by a step that takes bytes, and the next one says Wait.
	mute bool

	// noops and errors count what we answered: NOOPs, and BADs.
	noops, errors int

	// What the client is in the middle of; at most one is set.
	skip  *imapSkip
	login *imapLogin
	auth  *imapAuth

	ask imapAsk
	// judged: a credential is with the server and unsettled; who is the login
	// that it named first.
	judged bool
	who    string

	loggedIn bool
	blind    bool
	framed   *imapFramed
}

// imapPending is a command that the server has not yet answered.
type imapPending struct{ tag, verb string }

// imapAsk is the question to the guard about the command in hand.
type imapAsk struct {
	known   bool
	verdict Verdict
}

func newIMAP(set Setup) Conversation {
	return &imapConversation{set: set, secure: set.Secure}
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
	case c.mute, c.server == imapGreets:
		return Step{Do: Wait}
	case c.skip != nil:
		return c.skipOn(data)
	case c.login != nil:
		return c.collect(data)
	case c.auth != nil:
		return c.respond(data)
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
	return c.command(&cmd, line)
}

// command decides about one parsed command line.
func (c *imapConversation) command(cmd *imapCommand, line []byte) Step {
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
		return c.startAuth(cmd)
	case "ID":
		return c.id(cmd, line)
	}
	if cmd.literal.present {
		// Servers skip such a command to the end of its line and take
		// the literal for commands, or they do not.
		return c.desync()
	}
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
		if c.server == imapAlone {
			return Step{
				Take:     cmd.size,
				ToClient: []byte("* BYE Logging out.\r\n" + cmd.tag + " OK Logout completed.\r\n"),
				Do:       End,
				Why:      "client logged out",
			}
		}
	case "LANGUAGE": // RFC 5255: valid before login.
		if !c.mayDial() {
			return c.bad(cmd, "Not available here.")
		}
	case "STARTTLS":
		return c.startTLS(cmd)
	case "COMPRESS":
		return Step{Take: cmd.size, ToClient: []byte(cmd.tag + " NO Log in first.\r\n")}
	case "UNAUTHENTICATE":
		return c.bad(cmd, "Not logged in.")
	default:
		if c.server == imapAlone {
			return c.bad(cmd, "Unknown command, or not before login.")
		}
	}
	return c.pass(cmd)
}

// passes tells whether a command goes to the server as it is, without a
// question to the guard or an answer of ours.
func (c *imapConversation) passes(cmd *imapCommand) bool {
	if c.server != imapOpen || cmd.literal.present {
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

// pass forwards a command, dialling first if need be.
func (c *imapConversation) pass(cmd *imapCommand) Step {
	if step, ok := c.reach(cmd.tag); !ok {
		return step
	}
	c.pending = append(c.pending, imapPending{cmd.tag, cmd.verb})
	return Step{Take: cmd.size, Forward: true}
}

// reach makes sure that the server is there for a command.
func (c *imapConversation) reach(tag string) (Step, bool) {
	if c.server == imapOpen {
		return Step{}, true
	}
	c.waiting = tag
	return Step{Do: Dial}, false
}

// hold asks the guard about the credential of the command in hand. With ok it
// may go on; otherwise the step says how to proceed. A verdict stays until
// it is used up, so that a dial may come in between.
func (c *imapConversation) hold(cred func() *Credential) (Step, bool) {
	if !c.ask.known {
		cr := cred()
		c.who = ""
		if len(cr.Identities) > 0 {
			c.who = cr.Identities[0]
		}
		return Step{Do: Hold, Credential: cr}, false
	}
	return Step{}, c.ask.verdict == Pass
}

// Verdict takes the guard's answer.
func (c *imapConversation) Verdict(v Verdict) {
	c.ask = imapAsk{known: true, verdict: v}
}

// Dialled: the server is connected and about to greet.
func (c *imapConversation) Dialled() { c.server = imapGreets }

// Secured forgets all that was said in clear text (RFC 9051 section 6.2.1).
func (c *imapConversation) Secured() {
	*c = imapConversation{set: c.set, secure: true}
}

// Phase tells whose turn it is.
func (c *imapConversation) Phase() Phase {
	switch {
	case c.blind:
		return LoggedIn
	case c.framed != nil:
		return c.framed.phase()
	case c.judged && c.mute:
		return Judged
	case c.mute, len(c.pending) > 0 && c.auth == nil, c.server == imapGreets:
		return Owed
	}
	return Idle
}

func (c *imapConversation) tagPending(tag string) bool {
	for i := range c.pending {
		if c.pending[i].tag == tag {
			return true
		}
	}
	return false
}
