package protocol

import (
	"bytes"
	"fmt"
)

// An smtpAuth is an AUTH exchange under way (RFC 4954).
type smtpAuth struct {
	x     *exchange
	state authState

	// atCommand is set while it is the AUTH command itself that is held.
	atCommand bool

	// outstanding is set once the server has the credential.
	outstanding bool

	// told is set when the server has spoken after the secret went out, see
	// authExchange.
	told bool

	// verdict is the guard's answer.
	verdict Verdict

	// refusal is what the client is told once the server has let go of the
	// exchange that we aborted.
	refusal []byte

	// collecting is set under a soft ban: we play the server, keep the client's
	// lines, and say them to the server, each after its challenge, once the
	// guard has let the credential pass.
	collecting bool
	lines      [][]byte
}

// authState says whom an exchange waits for.
type authState uint8

const (
	authServer  authState = iota // for the server's challenge or verdict
	authClient                   // for the client's response
	authHeld                     // for the guard's verdict
	authDecided                  // for the line that is held, shown again
)

// answering tells whether the client's next line is a response.
func (a *smtpAuth) answering() bool { return !a.atCommand && a.state != authServer }

// authCommand decides about AUTH. It is serialised: nothing may be owed.
func (c *smtpConversation) authCommand(cmd smtpCommand, line []byte, size int) Step {
	if c.auth != nil && c.auth.state == authDecided {
		return c.decided(line, size)
	}
	switch {
	case c.setup.NoAuth:
		return c.local(size, "503 5.5.1 Error: authentication not enabled", AuthNotOffered)
	case !c.mayAuth() && c.setup.TLS == TLSStartTLS:
		return c.local(size, "530 5.7.0 Must issue a STARTTLS command first", PlaintextAuth)
	case !c.mayAuth():
		return c.local(size, "538 5.7.11 Encryption required for requested authentication mechanism", PlaintextAuth)
	case len(c.pending) > 0:
		return Step{Do: Wait}
	case c.stray:
		return Step{ToClient: saySMTP(SayNoServer, c.host()), Do: End, Why: "server is about to close"}
	}
	mech, initial, has, ok := authArgs(cmd.args)
	if !ok {
		return c.local(size, "501 5.5.4 Syntax: AUTH mechanism", "")
	}
	a := &smtpAuth{x: newExchange(mech, c.setup.MasterSeparator), atCommand: true}
	if c.link == linkNone {
		if !c.setup.Soft {
			return Step{Do: Dial}
		}
		if a.x.mech != "PLAIN" && a.x.mech != "LOGIN" {
			return c.local(size, "504 5.5.4 Error: authentication mechanism not supported", "")
		}
		a.collecting = true
	}
	switch a.x.begin(initial, has) {
	case saslHold:
		c.auth, a.state = a, authHeld
		return Step{Do: Hold, Credential: a.x.credential()}
	case saslPass:
		c.auth, a.atCommand = a, false
		if a.collecting {
			return c.collect(line, size)
		}
		c.pending = append(c.pending, smtpCommand{verb: cmdAuth})
		return Step{Take: size, Forward: true}
	}
	return c.local(size, "501 5.5.2 Error: cannot decode the response", AuthAborted)
}

// authArgs reads AUTH's parameters: a mechanism (RFC 4422 section 3.1) and
// perhaps an initial response.
func authArgs(args []byte) (mech string, initial []byte, has, ok bool) {
	fields := bytes.Fields(args)
	if len(fields) == 0 || len(fields) > 2 || len(fields[0]) > 20 {
		return "", nil, false, false
	}
	for _, c := range bytes.ToUpper(fields[0]) {
		if (c < 'A' || c > 'Z') && !isDigit(c) && c != '-' && c != '_' {
			return "", nil, false, false
		}
	}
	if len(fields) == 2 {
		return string(fields[0]), fields[1], true, true
	}
	return string(fields[0]), nil, false, true
}

// response decides about the client's answer to a challenge.
func (c *smtpConversation) response(line []byte, size int, fault lineFault) Step {
	a := c.auth
	switch a.state {
	case authHeld:
		return Step{Do: Wait}
	case authDecided:
		return c.decided(line, size)
	}
	step := saslGarbled
	if fault == faultNone {
		step = a.x.respond(line)
	}
	switch step {
	case saslPass:
		if a.collecting {
			return c.collect(line, size)
		}
		a.state = authServer
		return Step{Take: size, Forward: true}
	case saslHold:
		a.state = authHeld
		return Step{Do: Hold, Credential: a.x.credential()}
	case saslAbort:
		if a.collecting {
			c.auth = nil
			return c.local(size, "501 5.7.0 Authentication aborted", AuthAborted)
		}
		a.state = authServer
		return Step{Take: size, Forward: true}
	}
	text := "501 5.5.2 Error: cannot decode the response"
	if a.collecting {
		c.auth = nil
		return c.local(size, text, AuthAborted)
	}
	refused := c.abort(size, text)
	refused.Events = c.noise(AuthAborted, "")
	return refused
}

// abort ends the exchange at the server in the client's stead; the client
// hears of it when the server has answered.
func (c *smtpConversation) abort(size int, text string) Step {
	c.auth.state, c.auth.refusal = authServer, []byte(text+"\r\n")
	return Step{Take: size, ToServer: []byte("*\r\n")}
}

// decided carries the guard's verdict out on the line that was held.
func (c *smtpConversation) decided(line []byte, size int) Step {
	a := c.auth
	switch {
	case a.verdict == Banned:
		c.auth = nil
		return Step{Take: size, ToClient: saySMTP(SayBanned, c.host()), Do: End, Why: "banned"}
	case a.verdict != Pass && (a.atCommand || a.collecting):
		c.auth = nil
		return c.tooMany(Step{Take: size, ToClient: []byte(authRefusal(a.verdict) + "\r\n")})
	case a.verdict != Pass:
		return c.tooMany(c.abort(size, authRefusal(a.verdict)))
	}
	a.outstanding = true
	if a.collecting {
		// whileOpening keeps the line; it is shown again behind the dial.
		return Step{Do: Dial}
	}
	if a.atCommand {
		c.pending = append(c.pending, smtpCommand{verb: cmdAuth})
	}
	a.atCommand, a.state = false, authServer
	return Step{Take: size, Forward: true}
}

// tooMany ends a connection in which we have refused enough. Our own refusals
// are no events.
func (c *smtpConversation) tooMany(refusal Step) Step {
	c.refusals++
	if c.refusals < maxOwnErrors {
		return refusal
	}
	c.auth = nil
	return Step{
		Take: refusal.Take, Do: End, Why: "too many refused logins",
		ToClient: append(refusal.ToClient, formatLine("421 4.7.0 %s Too many errors", c.host())...),
	}
}

// authRefusal words our own refusals. The temporary ones keep a client from
// throwing its saved password away.
func authRefusal(v Verdict) string {
	switch v {
	case Repeated:
		return "535 5.7.8 Error: authentication failed"
	case Guarded:
		return "454 4.7.0 Temporary authentication failure: try again later"
	case Refused:
		return "454 4.7.0 Authentication from your address is refused for now"
	}
	return "454 4.7.0 Temporary authentication failure: too many attempts under way"
}

// collect plays the server under a soft ban: it keeps the line and asks for the
// next.
func (c *smtpConversation) collect(line []byte, size int) Step {
	a := c.auth
	a.keep(line)
	a.state = authClient
	challenge := ""
	if a.x.mech == "LOGIN" {
		challenge = "VXNlcm5hbWU6" // Username:
		if a.x.responses > 0 {
			challenge = "UGFzc3dvcmQ6" // Password:
		}
	}
	return Step{Take: size, ToClient: fmt.Appendf(nil, "334 %s\r\n", challenge)}
}

func (a *smtpAuth) keep(line []byte) {
	a.lines = append(a.lines, append(bytes.Clone(line), '\r', '\n'))
}

// nextLine gives the next collected line, and forgets it.
func (a *smtpAuth) nextLine() []byte {
	line := a.lines[0]
	a.lines = a.lines[1:]
	return line
}

// authReply reads the server's answer within an exchange.
func (c *smtpConversation) authReply(data []byte) Step {
	r, n, state := readSMTPReply(data)
	if step, done := c.unread(state); done {
		return step
	}
	a := c.auth
	// A challenge is base64. What bears an enhanced code is a final answer
	// (Stalwart: "334 5.7.8 This account requires multi-factor …").
	if r.code == "334" && r.enhanced == "" {
		return c.challenge(n)
	}
	if r.code[0] == '3' && r.code != "334" {
		return c.serverFault("server's answer to AUTH is none")
	}
	c.auth = nil
	c.answered(r)
	c.halfDone = r.code == "334"
	step := Step{Take: n, Forward: true}
	m := c.table.lookup("smtp", "AUTH", r)
	if a.outstanding {
		step.Outcome, step.Code = m.outcome, r.label()
		if m.outcome == Unsettled || a.refusal != nil {
			step.Outcome = Neutral
		}
		if a.told && (a.refusal != nil || m.kind == AuthAborted) {
			step.Outcome = Failure
		}
	}
	if a.refusal != nil {
		step.Forward, step.ToClient = false, a.refusal
		return step
	}
	if m.kind != "" {
		step.Events = c.noise(m.kind, r.label())
	}
	if m.outcome == Success {
		c.authed = true
		if cred := a.x.credential(); cred != nil && len(cred.Identities) > 0 {
			c.login = cred.Identities[0]
		}
	} else if a.collecting {
		// The server was dialled for this login and for nothing else.
		step.Do, step.Why = End, "login refused under a soft ban"
	}
	return step
}

// challenge passes a challenge on, or answers it from what was collected.
func (c *smtpConversation) challenge(n int) Step {
	a := c.auth
	switch {
	case a.refusal != nil:
		return c.serverFault("server goes on with an aborted AUTH")
	case len(a.lines) > 0:
		return Step{Take: n, ToServer: a.nextLine()}
	case a.collecting:
		return c.serverFault("server asks for more than the login's lines")
	}
	a.state = authClient
	a.told = a.outstanding && a.x.secretSent()
	return Step{Take: n, Forward: true}
}

// undecided is the outcome that a sudden end has. What the client knows already
// it cannot undo by ending the dialogue.
func (a *smtpAuth) undecided() Outcome {
	switch {
	case a == nil || !a.outstanding:
		return Unsettled
	case a.told:
		return Failure
	}
	return Neutral
}
