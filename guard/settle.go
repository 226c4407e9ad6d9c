package guard

import (
	"time"

	"mailreeve/protocol"
)

// Settle tells what came of an attempt. The verdict is Pass if the server's
// reply may be released, Banned if the client must be cut instead. A second
// call for the same attempt does nothing.
func (g *Guard) Settle(a *Attempt, out protocol.Outcome, code string) Decision {
	if a.settled.Swap(true) {
		return Decision{}
	}
	g.stats.inFlight.Add(-1)
	set, now, t := g.set.Load(), g.clock.now(), a.try
	took := now.Sub(a.started)
	definite := out == protocol.Success || out == protocol.Failure
	failure := out == protocol.Failure || out == protocol.Left
	if out == protocol.Penalty {
		failure = g.penaltyIsFailure(t, took, now)
	}
	if t.ghost {
		g.stats.outcome(out)
		ev := t.event(now, protocol.AuthFailure)
		ev.Code, ev.Outcome = code, out.String()
		g.tellAttempt(t, ev, out.String(), Decision{Simulated: a.simulated})
		return Decision{Simulated: a.simulated}
	}
	if definite {
		g.trouble.answered(t, out == protocol.Success, now.UnixMilli())
	}
	g.stats.outcome(out)

	ev := t.event(now, protocol.AuthFailure)
	ev.Code, ev.Outcome, ev.Took = code, out.String(), Duration(took.Round(time.Millisecond))
	if !failure {
		g.ledger.settle(now, a.claims, false, nil)
		if out == protocol.Success {
			g.succeed(set, t, now)
		}
		g.finish(a, out, now)
		g.tellAttempt(t, ev, out.String(), Decision{})
		return Decision{}
	}
	return g.fail(set, a, out, ev, now)
}

// fail charges a failure, with what follows, and says whether the client may
// still be told.
func (g *Guard) fail(set *settings, a *Attempt, out protocol.Outcome, ev *Event, now time.Time) Decision {
	t := a.try
	for login := range t.ticket {
		g.ledger.ticketFailed(now, login, t.net.String())
	}
	g.stats.event(protocol.AuthFailure, t.o.Listener)
	g.lost.offended(g, &t.o, now.UnixMilli())
	totals := g.ledger.settle(now, a.claims, true, ev)
	g.sentence(set, &t.o, totals, now)
	g.finish(a, out, now)

	// Only a ban holds this reply back; refusals of other kinds are for the
	// next credential.
	d := g.standing(set, t, now, false, false)
	if d.Verdict != protocol.Banned || t.allowed {
		d = Decision{Delay: g.tarpit(set, t, now)}
	}
	if dry := g.standing(set, t, now, true, false); dry.Verdict == protocol.Banned {
		d.Simulated = dry.Rule
	}
	g.tellAttempt(t, ev, protocol.Failure.String(), d)
	return d
}

// finish gives what waited on the attempt its turn. Only a definite answer is
// remembered for the guess: who left may have had the right password.
func (g *Guard) finish(a *Attempt, out protocol.Outcome, now time.Time) {
	if a.try.guess.same() {
		g.guesses.end(&a.try.guess, a.try.addr, now.UnixMilli(), out == protocol.Success, out == protocol.Failure)
	}
	g.queues.settled(a.claims)
}

// succeed makes the place familiar to the login whose password the server has
// checked, and clears what it had at this address. It does not do so for the
// credential's other names, which some servers take no notice of: who has an
// account of his own would become familiar to anybody's by naming him as
// authorisation identity. Nor does it clear the address: who has one account
// must not reset his score with it.
func (g *Guard) succeed(set *settings, t *try, now time.Time) {
	ms := now.UnixMilli()
	g.stats.falseBans.succeeded(t.addr, ms)
	if len(t.logins) == 0 {
		return
	}
	if set.cfg.Familiar > 0 {
		g.places.add(t.logins[0], t.addr, ms)
	}
	all := func(string) bool { return true }
	g.ledger.clear(key{kind: byPair, prefix: t.addr, login: t.logins[0]}, forever, all)
	if t.familiar[0] == familiarNetwork {
		g.ledger.clear(t.pairKey(0), forever, all)
	}
}

// tarpit gives for how long a refusal is held back.
func (g *Guard) tarpit(set *settings, t *try, now time.Time) time.Duration {
	if g.sentences.roll.classes.strict.Load() == 0 {
		return set.cfg.Tarpit.Std()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	keys := []key{{kind: byAddress, prefix: t.addr}, {kind: byNetwork, prefix: t.net}}
	for _, login := range t.logins {
		keys = append(keys, key{kind: byLogin, login: login}, key{kind: byPair, prefix: t.addr, login: login})
	}
	for _, k := range keys {
		if g.sentences.active(sentenceKey{delayed, k, "", false}, now.UnixMilli()) != nil {
			return max(set.cfg.Tarpit.Std(), delayLength)
		}
	}
	return set.cfg.Tarpit.Std()
}

// event gives the event of a try, without what came of it.
func (t *try) event(now time.Time, kind protocol.Kind) *Event {
	ev := t.o.event(now, kind)
	ev.Familiar = !t.strange
	ev.Guess = t.guess.print()
	if len(t.logins) > 0 {
		ev.Login = t.logins[0]
	}
	return ev
}

// event gives an event that happened there.
func (o *Origin) event(now time.Time, kind protocol.Kind) *Event {
	return &Event{
		Time: now, Kind: kind, Addr: o.Addr, Listener: o.Listener, Scope: o.Scope,
		Protocol: o.Protocol, Upstream: o.Upstream, Conn: o.Conn,
	}
}
