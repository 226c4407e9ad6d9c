package protocol

// A dialogue is what the conversations of IMAP, POP3 and ManageSieve have in
// common: who logs in there gets at a mailbox, and until then there is little
// else to say. Each embeds one and adds how its lines read.
type dialogue struct {
	set   Setup
	words *loginWords

	secure bool
	server serverState
	// bye is set when the server has said that it will close.
	bye bool
	// stray is set after a reply that nobody asked for, where replies are told
	// apart by their place alone: from then on any of them may be another's.
	stray bool

	// pending are the commands that are with the server, oldest first.
	pending []pendingCommand
	// waiting is the tag of the command that asked for the dial.
	waiting string
	// mute: the server must speak before more of the client is looked at. It
	// is set by a step that takes bytes, and the next one says Wait.
	mute bool

	// noops, errors and refusals count what we answered: NOOPs, errors, and
	// logins that the guard refused.
	noops, errors, refusals int

	// auth is the SASL exchange that the client is in the middle of.
	auth *authExchange
	// ask is the question to the guard about the command in hand.
	ask guardAnswer
	// judged: a credential is with the server and unsettled; who is the login
	// that it named first.
	judged bool
	who    string
}

// serverState is where the connection to the server stands.
type serverState uint8

const (
	// serverAlone: not connected.
	serverAlone serverState = iota
	// serverGreets: connected; the server's greeting is due.
	serverGreets
	// serverOpen: the server takes commands.
	serverOpen
)

// A pendingCommand is one that the server has not yet answered. Only IMAP has
// tags.
type pendingCommand struct{ tag, verb string }

// A guardAnswer is a verdict, once it is known.
type guardAnswer struct {
	known   bool
	verdict Verdict
}

// loginWords are a protocol's ways to say what a login needs.
type loginWords struct {
	// protocol is the name in the reply table, verb the SASL command.
	protocol, verb string
	// refuse answers a credential that the guard does not let pass.
	refuse func(v Verdict, tag string) Step
	// garbled answers a response that cannot pass, noMechanism a mechanism
	// that is not to be had.
	garbled, noMechanism func(tag string) string
	// command begins an exchange with the server; challenge asks the client
	// for a response, response gives one to the server; abort breaks off.
	command   func(tag, mech string) []byte
	challenge func(base64 string) []byte
	response  func(base64 []byte) []byte
	abort     string
	// gone says that there is no server, tooMany that we have refused enough.
	gone, tooMany []byte
}

// mayAuth tells whether credentials are taken from this client at all.
func (d *dialogue) mayAuth() bool {
	return !d.set.NoAuth && (d.secure || d.set.PlaintextAuth)
}

// answersFromOffer tells whether questions about the server are ours to
// answer. Without TLS there is nothing the server could do for the client, and
// it would learn wrong TLS facts from the PROXY header.
func (d *dialogue) answersFromOffer() bool {
	if d.server == serverOpen {
		return false
	}
	return d.set.Soft || !d.secure && (d.set.TLS == TLSStartTLS || !d.set.PlaintextAuth)
}

// ownNoop: three NOOPs are ours, and more where the server is out of reach.
func (d *dialogue) ownNoop() bool {
	return d.server == serverAlone && (d.noops < 3 || d.answersFromOffer())
}

// offersStartTLS tells whether STARTTLS is to be had now.
func (d *dialogue) offersStartTLS() bool { return d.set.TLS == TLSStartTLS && !d.secure }

// host is the name that we greet with.
func (d *dialogue) host() string {
	if d.set.Offer.Host != "" {
		return d.set.Offer.Host
	}
	return d.set.Hostname
}

// reach makes sure that the server is there for a command.
func (d *dialogue) reach(tag string) (Step, bool) {
	if d.server == serverOpen {
		return Step{}, true
	}
	d.waiting = tag
	return Step{Do: Dial}, false
}

// forward passes a command as it came, dialling first if need be.
func (d *dialogue) forward(tag, verb string, size int) Step {
	if step, ok := d.reach(tag); !ok {
		return step
	}
	d.pending = append(d.pending, pendingCommand{tag, verb})
	return Step{Take: size, Forward: true}
}

// hold asks the guard about the credential of the command in hand. With ok it
// may go on; otherwise the step says how to proceed. A verdict stays until it
// is used up, so that a dial may come in between. No credential goes to a server
// whose reply to it could not be known.
func (d *dialogue) hold(cred func() *Credential) (Step, bool) {
	if d.stray {
		step := Step{Do: End, Outcome: d.outstanding(), Why: "server has answered what nobody asked"}
		if !d.bye {
			step.ToClient = d.words.gone
		}
		return step, false
	}
	if !d.ask.known {
		c := cred()
		d.who = ""
		if len(c.Identities) > 0 {
			d.who = c.Identities[0]
		}
		return Step{Do: Hold, Credential: c}, false
	}
	return Step{}, d.ask.verdict == Pass
}

// withheld is what comes of a credential that did not get a Pass: the question
// itself, or the end, or with the guard's answer in hand, the refusal.
func (d *dialogue) withheld(step Step, tag string, size int) Step {
	if step.Do == Hold || step.Do == End {
		return step
	}
	v := d.ask.verdict
	d.ask = guardAnswer{}
	d.auth = nil
	d.who = ""
	step = d.words.refuse(v, tag)
	step.Take = size
	// A wrong password that comes again and again scores once, and each time
	// asks the guard.
	if d.refusals++; d.refusals >= maxOwnErrors && step.Do != End {
		step.ToClient = append(step.ToClient, d.words.tooMany...)
		step.Do, step.Why = End, "too many refused logins"
	}
	return step
}

// sendsCredential notes that what the guard let pass goes to the server now. A
// verb begins a command.
func (d *dialogue) sendsCredential(tag, verb string) {
	d.ask = guardAnswer{}
	d.judged = true
	d.mute = true
	if verb != "" {
		d.pending = append(d.pending, pendingCommand{tag, verb})
	}
}

// outstanding is the outcome that a dialogue's sudden end has. What the client
// knows already it cannot undo by ending the dialogue.
func (d *dialogue) outstanding() Outcome {
	if d.judged && d.auth != nil && d.auth.told {
		return Failure
	}
	if d.judged || d.ask.known && d.ask.verdict == Pass {
		return Neutral
	}
	return Unsettled
}

// Verdict takes the guard's answer.
func (d *dialogue) Verdict(v Verdict) { d.ask = guardAnswer{known: true, verdict: v} }

// Dialled: the server is connected and about to greet.
func (d *dialogue) Dialled() { d.server = serverGreets }

// phase tells whose turn it is before login.
func (d *dialogue) phase() Phase {
	switch {
	case d.judged && d.mute:
		return Judged
	case d.mute, d.server == serverGreets, len(d.pending) > 0 && d.auth == nil:
		return Owed
	}
	return Idle
}

// settle takes the final reply to a login: it clears what was in hand and gives
// the outcome with the server's reply, label being the reply without its text.
// The caller releases the reply.
func (d *dialogue) settle(r reply, label string) (step Step) {
	m := d.set.replies().lookup(d.words.protocol, "AUTH", r)
	if d.judged {
		step.Code = label
		if step.Outcome = m.outcome; m.outcome == Unsettled {
			step.Outcome = Neutral
		}
	}
	if d.judged && m.kind == AuthAborted && d.auth != nil && d.auth.told {
		step.Outcome = Failure
	}
	if m.kind != "" {
		step.Events = []Event{{Kind: m.kind, Login: d.who, Code: label}}
	}
	d.auth = nil
	d.mute, d.judged = false, false
	d.who = ""
	return step
}

// gone is the end when the server could not be reached or has closed. owed
// tells whether the client still waits for an answer of the server's.
func (d *dialogue) gone(owed bool) Step {
	step := Step{Do: End, Outcome: d.outstanding(), Why: "server closed the connection"}
	if d.server == serverAlone {
		step.Why = "no server answers"
		step.ToClient = d.words.gone
		return step
	}
	if d.judged {
		// Some servers close instead of refusing.
		step.Code = "close"
		r := reply{code: "close"}
		if d.set.replies().lookup(d.words.protocol, "AUTH", r).outcome == Failure {
			step.Outcome = Failure
		}
	}
	if owed && !d.bye {
		step.ToClient = d.words.gone
	}
	return step
}

// babble ends a dialogue whose server sends lines without end.
func (d *dialogue) babble() Step {
	return Step{
		ToClient: d.words.gone,
		Outcome:  d.outstanding(),
		Do:       End,
		Why:      "server sent too long a line",
	}
}
