package protocol

import "bytes"

// An authExchange is a SASL exchange in progress. The protocols differ in how
// they wrap its challenges and responses, which is in their loginWords.
type authExchange struct {
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

	// aborting: the server has our abort and owes the final reply, which is
	// swallowed; answer is what the client is told instead.
	aborting bool
	answer   Step

	// told is set when the server has spoken after the secret went out: the
	// client may know its verdict already (OAuth's error report, SCRAM's
	// e=invalid-proof), and giving up now takes no guess back.
	told bool
}

// startAuth decides about the command that begins an exchange, of size octets.
// initial is its initial response, if it has one.
func (d *dialogue) startAuth(tag, mech string, initial []byte, has bool, size int) Step {
	a := &authExchange{tag: tag, x: newExchange(mech, d.set.MasterSeparator)}
	a.mech = a.x.mech
	a.own = d.set.Soft && d.server == serverAlone
	if a.own && !softMechanism(a.mech) {
		return Step{
			Take:     size,
			ToClient: []byte(d.words.noMechanism(tag)),
			Events:   []Event{{Kind: UnknownMechanism}},
		}
	}
	switch a.x.begin(initial, has) {
	case saslGarbled, saslAbort:
		return d.garbled(tag, size)
	case saslHold:
		step, ok := d.hold(a.x.credential)
		if !ok {
			return d.withheld(step, tag, size)
		}
		if step, ok = d.reach(tag); !ok {
			return step
		}
		a.own = false
		d.auth = a
		d.sendsCredential(tag, d.words.verb)
		return Step{Take: size, Forward: true}
	}
	if a.own {
		if has {
			// "=" stands for an empty response in this place only.
			response := bytes.TrimSuffix(bytes.Clone(initial), []byte("="))
			if len(response) > 0 {
				response = bytes.Clone(initial)
			}
			a.responses = append(a.responses, response)
		}
		d.auth = a
		return Step{Take: size, ToClient: d.words.challenge(a.prompt())}
	}
	step := d.forward(tag, d.words.verb, size)
	if step.Forward {
		d.auth = a
		d.mute = true
	}
	return step
}

// softMechanism tells whether we can collect a mechanism's credential without
// the server.
func softMechanism(mech string) bool { return mech == "PLAIN" || mech == "LOGIN" }

// prompt is the challenge that a server would send now, for PLAIN and LOGIN.
func (a *authExchange) prompt() string {
	switch {
	case a.mech != "LOGIN":
		return ""
	case len(a.responses) == 0:
		return "VXNlcm5hbWU6" // "Username:"
	}
	return "UGFzc3dvcmQ6" // "Password:"
}

// garbled answers an exchange that must not go on.
func (d *dialogue) garbled(tag string, size int) Step {
	d.auth = nil
	return Step{
		Take:     size,
		ToClient: []byte(d.words.garbled(tag)),
		Events:   []Event{{Kind: AuthAborted}},
	}
}

// respond decides about the client's next response, of size octets with its
// wrapping: it is data, whatever it looks like.
func (d *dialogue) respond(text []byte, size int) Step {
	a := d.auth
	if !a.read {
		// The same response is shown again after a verdict or a dial.
		a.read = true
		a.is = a.x.respond(text)
	}
	if a.is == saslHold {
		return d.holdResponse(text, size)
	}
	a.read = false
	switch {
	case a.is == saslPass && a.own:
		a.responses = append(a.responses, bytes.Clone(text))
		return Step{Take: size, ToClient: d.words.challenge(a.prompt())}
	case a.is == saslPass, a.is == saslAbort && !a.own:
		// The server's answer to an abort ends the command.
		d.mute = true
		return Step{Take: size, Forward: true}
	case a.own:
		return d.garbled(a.tag, size)
	}
	answer := d.garbled(a.tag, 0)
	return d.abortAuth(a, size, answer)
}

// holdResponse asks the guard about the response that carries the credential,
// and passes it or breaks the exchange off.
func (d *dialogue) holdResponse(text []byte, size int) Step {
	a := d.auth
	step, ok := d.hold(a.x.credential)
	if step.Do == Hold || step.Do == End {
		return step
	}
	if !ok {
		a.read = false
		refusal := d.withheld(step, a.tag, size)
		if a.own || refusal.Do == End {
			return refusal
		}
		refusal.Take = 0
		return d.abortAuth(a, size, refusal)
	}
	if step, ok = d.reach(a.tag); !ok {
		return step
	}
	a.read = false
	if a.own {
		a.responses = append(a.responses, bytes.Clone(text))
		d.sendsCredential(a.tag, d.words.verb)
		return Step{Take: size, ToServer: d.words.command(a.tag, a.mech)}
	}
	d.sendsCredential("", "")
	return Step{Take: size, Forward: true}
}

// abortAuth breaks off an exchange that the server is in, as the client could.
func (d *dialogue) abortAuth(a *authExchange, size int, answer Step) Step {
	a.aborting = true
	a.answer = answer
	d.auth = a
	d.mute = true
	return Step{Take: size, ToServer: []byte(d.words.abort)}
}

// challenged takes a challenge of the server's, of size octets.
func (d *dialogue) challenged(size int) Step {
	a := d.auth
	switch {
	case a == nil:
	case a.aborting:
		return Step{Take: size}
	case a.own && a.next < len(a.responses):
		a.next++
		return Step{Take: size, ToServer: d.words.response(a.responses[a.next-1])}
	default:
		d.mute = false
		a.told = a.told || d.judged && a.x.secretSent()
	}
	return Step{Take: size, Forward: true}
}

// brokenOff takes the final reply to an exchange that we broke off, and gives
// the client its answer. ok is false if the exchange was not broken off.
func (d *dialogue) brokenOff(r reply, label string, size int) (step Step, ok bool) {
	a := d.auth
	if a == nil || !a.aborting {
		return step, false
	}
	settled := d.settle(r, label)
	if settled.Outcome == Success || r.code == "OK" || r.code == "+OK" {
		return Step{
			ToClient: d.words.gone,
			Do:       End,
			Why:      "server accepted a login that was broken off",
		}, true
	}
	step = a.answer
	step.Take = size
	if settled.Outcome != Unsettled {
		step.Outcome, step.Code = Neutral, label
	}
	if a.told && settled.Outcome != Unsettled {
		step.Outcome = Failure
	}
	return step, true
}
