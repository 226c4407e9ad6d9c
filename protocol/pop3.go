package protocol

import (
	"bytes"
	"strings"
)

// pop3 is RFC 1939 with CAPA (RFC 2449), AUTH (RFC 5034) and STLS (RFC 2595).
//
// APOP needs the server's timestamp in the greeting, and we greet before the
// server does: it is not to be had. Behind a login there is no way back to
// another, so that all bytes pass unseen from then on. Before it only commands
// whose replies we can tell the end of reach the server; XCLIENT and XOIP, by
// which Dovecot learns a client's address, are not among them.
var pop3 = &Protocol{
	Name:  "pop3",
	ALPN:  "pop3",
	Scope: "auth",
	New:   newPOP3,
	Probe: newPOP3Probe,
	Say:   sayPOP3,
}

// maxPOP3Line bounds any line, with its end. RFC 2449 section 4 has 255, tokens
// need some thousands; but Courier reads 8191 octets at most and takes what is
// left of a SASL response for a command, whose answer would be one too many.
const maxPOP3Line = 8000

// A pop3Conversation follows one POP3 dialogue.
type pop3Conversation struct {
	dialogue

	// user is the name that the server accepted in USER, and PASS not yet
	// used; named tells that there is one.
	user  string
	named bool
	// replayUser: the server has to be told the USER that we answered.
	replayUser bool
	// replaying: our own USER is with the server, pass is the PASS line that
	// follows it.
	replaying bool
	pass      []byte
	// listing: the oldest pending command's multi-line reply is being passed.
	listing bool
	blind   bool
}

func newPOP3(set Setup) Conversation {
	return &pop3Conversation{dialogue: dialogue{set: set, words: pop3Words, secure: set.Secure}}
}

// Start greets, without a timestamp for APOP.
func (c *pop3Conversation) Start() Step {
	return Step{ToClient: []byte("+OK " + c.host() + " ready.\r\n")}
}

// Secured forgets all that was said in clear text (RFC 2595 section 4).
func (c *pop3Conversation) Secured() {
	*c = pop3Conversation{dialogue: dialogue{set: c.set, words: pop3Words, secure: true}}
}

// Phase tells whose turn it is.
func (c *pop3Conversation) Phase() Phase {
	if c.blind {
		return LoggedIn
	}
	return c.phase()
}

// Client decides about the client's bytes.
func (c *pop3Conversation) Client(data []byte) Step {
	if c.mute || c.server == serverGreets {
		return Step{Do: Wait}
	}
	line, state := c.clientLine(data, maxPOP3Line)
	switch state {
	case lineTLS:
		return Step{Do: End, Why: "client began TLS on a clear-text port"}
	case linePart:
		return Step{Do: More}
	case lineLong:
		return Step{
			ToClient: []byte("-ERR Line too long.\r\n"),
			Outcome:  c.outstanding(),
			Events:   []Event{{Kind: LineTooLong}},
			Do:       End,
			Why:      "client sent too long a line",
		}
	case lineBare:
		return c.bareNewline(line)
	}
	text := line[:len(line)-2]
	if c.auth != nil {
		return c.respond(text, len(line))
	}
	verb, args, has := strings.Cut(string(text), " ")
	verb = strings.ToUpper(verb)
	if len(c.pending) > 0 && (!c.passes(verb) || len(c.pending) >= MaxPending) {
		// Our own answers and credentials must not overtake a reply.
		return Step{Do: Wait}
	}
	if foreignLine(line) {
		return Step{
			ToClient: []byte("-ERR This is a POP3 server.\r\n"),
			Events:   []Event{{Kind: ForeignProtocol}},
			Do:       End,
			Why:      "client speaks another protocol",
		}
	}
	return c.command(verb, args, has, len(line))
}

// passes tells whether a command goes to the server as it is, without a
// question to the guard or an answer of ours.
func (c *pop3Conversation) passes(verb string) bool {
	switch verb {
	case "CAPA", "NOOP", "QUIT", "UTF8", "LANG", "USER":
		return c.server == serverOpen
	}
	return false
}

// command decides about one command.
func (c *pop3Conversation) command(verb, args string, has bool, size int) Step {
	switch verb {
	case "USER":
		return c.userCommand(args, size)
	case "PASS":
		return c.passCommand(args, has, size)
	case "AUTH":
		return c.authCommand(args, has, size)
	case "STLS":
		return c.startTLS(size)
	case "CAPA":
		if c.answersFromOffer() {
			return c.answer(size, c.capabilities())
		}
	case "NOOP":
		if c.ownNoop() {
			c.noops++
			return c.answer(size, "+OK\r\n")
		}
	case "QUIT":
		if c.server == serverAlone {
			step := c.answer(size, "+OK Logging out.\r\n")
			step.Do = End
			step.Why = "client logged out"
			return step
		}
	case "UTF8", "LANG":
		if c.answersFromOffer() {
			return c.bad(size, "Not available here.")
		}
		if verb == "LANG" && strings.TrimSpace(args) == "" {
			verb = "LANG?" // RFC 6856 section 3: without an argument it lists
		}
	default:
		return c.bad(size, "Unknown command, or not before login.")
	}
	return c.forward("", verb, size)
}

func (c *pop3Conversation) answer(size int, text string) Step {
	return Step{Take: size, ToClient: []byte(text)}
}

// userCommand passes USER on; under a soft ban it is ours, and told to the
// server together with PASS. Only a name that was accepted is one that PASS
// can be judged by.
func (c *pop3Conversation) userCommand(name string, size int) Step {
	if !c.mayAuth() {
		return c.refuseAuth(size)
	}
	if strings.TrimSpace(name) == "" {
		return c.bad(size, "USER takes a name.")
	}
	if c.answersFromOffer() {
		c.user, c.named, c.replayUser = name, true, true
		return c.answer(size, "+OK\r\n")
	}
	step := c.forward("", "USER", size)
	if step.Forward {
		c.user, c.named = name, false
	}
	return step
}

// passCommand holds PASS: its password is the rest of the line, blanks and all.
func (c *pop3Conversation) passCommand(password string, has bool, size int) Step {
	if !c.mayAuth() {
		return c.refuseAuth(size)
	}
	if !c.named || !has {
		return c.bad(size, "First USER, then PASS.")
	}
	step, ok := c.hold(func() *Credential {
		return &Credential{
			Mechanism:  "USER",
			Identities: identities(c.set.MasterSeparator, c.user),
			Secret:     []byte(password),
		}
	})
	if !ok {
		step = c.withheld(step, "", size)
		if step.Do != Hold {
			c.forgetUser()
		}
		return step
	}
	if step, ok = c.reach(""); !ok {
		return step
	}
	if c.replayUser {
		user := "USER " + c.user + "\r\n"
		c.pass = []byte("PASS " + password + "\r\n")
		c.replaying = true
		c.forgetUser()
		c.sendsCredential("", "PASS")
		return Step{Take: size, ToServer: []byte(user)}
	}
	c.forgetUser()
	c.sendsCredential("", "PASS")
	return Step{Take: size, Forward: true}
}

// forgetUser: RFC 1939 has PASS directly behind USER only.
func (c *pop3Conversation) forgetUser() {
	c.user, c.named, c.replayUser = "", false, false
}

// authCommand begins a SASL exchange, or asks which mechanisms there are.
func (c *pop3Conversation) authCommand(args string, has bool, size int) Step {
	if !c.mayAuth() {
		return c.refuseAuth(size)
	}
	mech, initial, hasInitial := strings.Cut(args, " ")
	if !has || mech == "" {
		if c.answersFromOffer() {
			return c.bad(size, "AUTH takes a mechanism.")
		}
		return c.forward("", "AUTH?", size)
	}
	if len(mech) > 64 || !atomic([]byte(mech)) {
		return c.bad(size, "AUTH takes a mechanism.")
	}
	return c.startAuth("", mech, []byte(initial), hasInitial, size)
}

func (c *pop3Conversation) startTLS(size int) Step {
	switch {
	case c.secure:
		return c.bad(size, "TLS is already active.")
	case !c.offersStartTLS():
		return c.bad(size, "TLS is not available here.")
	}
	step := c.answer(size, "+OK Begin TLS negotiation now.\r\n")
	step.Do = StartTLS
	return step
}

// bareNewline refuses a line that servers might split in another way.
func (c *pop3Conversation) bareNewline(line []byte) Step {
	events := []Event{{Kind: BareNewline}}
	if c.auth != nil {
		return Step{
			ToClient: []byte("-ERR Lines end in CR LF.\r\n"),
			Events:   events,
			Outcome:  c.outstanding(),
			Do:       End,
			Why:      "client sent a bare CR, LF or NUL in a login",
		}
	}
	if len(c.pending) > 0 {
		return Step{Do: Wait}
	}
	if foreignLine(bytes.TrimSpace(line)) {
		events = append(events, Event{Kind: ForeignProtocol})
	}
	step := c.bad(len(line), "Lines end in CR LF, and hold no other CR, LF or NUL.")
	step.Events = append(events, step.Events[1:]...)
	return step
}
