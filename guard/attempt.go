package guard

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"mailreeve/protocol"
)

// An Attempt is a credential that may go to the server, with its reservations.
// It must be settled exactly once.
type Attempt struct {
	try     *try
	claims  []claim
	started time.Time
	settled atomic.Bool
	// simulated is the rule that would have refused it, in a dry run.
	simulated string
}

// Attempt asks for a credential to go to the server. With Pass it has reserved
// its points and the attempt must be settled; with any other verdict the
// attempt is nil. It may wait for other attempts to be settled, until ctx ends
// or at most 30 s. c.Secret is not used after the return.
func (g *Guard) Attempt(ctx context.Context, o *Origin, c *protocol.Credential) (*Attempt, Decision) {
	set, now := g.set.Load(), g.clock.now()
	t := g.newTry(set, o, c, now)
	a, d := g.attempt(ctx, set, t)
	if a == nil {
		g.stats.refusal(d.Verdict)
		g.tellAttempt(t, t.event(now, protocol.AuthFailure), "refused", d)
	}
	return a, d
}

func (g *Guard) attempt(ctx context.Context, set *settings, t *try) (*Attempt, Decision) {
	now := g.clock.now()
	if d := g.standing(set, t, now, false, false); d.Verdict == protocol.Banned || d.Verdict == protocol.Refused {
		return nil, d
	}
	if d := g.honeypot(set, t, now); d.Verdict != protocol.Pass {
		return nil, d
	}
	if set.cfg.DryRun {
		if d := g.standing(set, t, now, true, true); d.Verdict != protocol.Pass {
			return g.ghost(t, now, d)
		}
	}
	p := patience{client: ctx}
	defer p.end()
	if t.guess.same() {
		if d := g.join(&p, set, t); d.Verdict != protocol.Pass {
			return nil, d
		}
	}
	a, d := g.reserve(&p, set, t)
	if a == nil && t.guess.same() {
		g.guesses.end(&t.guess, t.addr, g.clock.now().UnixMilli(), false, false)
	}
	return a, d
}

// A patience is for how long an attempt waits in all, in whichever queues: until
// its client has gone, or attemptWait from when it first has to. Most never do.
type patience struct {
	client context.Context
	within context.Context
	cancel context.CancelFunc
}

func (p *patience) over() <-chan struct{} {
	if p.within == nil {
		p.within, p.cancel = context.WithTimeout(p.client, attemptWait)
	}
	return p.within.Done()
}

func (p *patience) end() {
	if p.cancel != nil {
		p.cancel()
	}
}

// ghost lets an attempt go that would not have got so far were it not for the
// dry run. It leaves no trace, so that the dry run decides as the guard would.
func (g *Guard) ghost(t *try, now time.Time, d Decision) (*Attempt, Decision) {
	t.ghost = true
	g.stats.inFlight.Add(1)
	return &Attempt{try: t, started: now, simulated: d.Rule}, Decision{Simulated: d.Rule}
}

// honeypot bans who tries a login that nobody has. The server never sees it.
func (g *Guard) honeypot(set *settings, t *try, now time.Time) Decision {
	if t.allowed {
		return Decision{}
	}
	for _, login := range t.logins {
		if set.honeypots[login] {
			ev := t.event(now, HoneypotLogin)
			ev.Login = login
			return g.score(set, &t.o, ev)
		}
	}
	return Decision{}
}

// join sees to it that the same guess is not with the server twice at a time,
// and not again a moment after it failed.
func (g *Guard) join(p *patience, set *settings, t *try) Decision {
	var w *waiter
	defer func() { g.queues.leave(w) }()
	for {
		now := g.clock.now()
		if d := g.standing(set, t, now, false, false); d.Verdict == protocol.Banned {
			return d
		}
		state, flight := g.guesses.begin(&t.guess, t.addr, t.net, now.UnixMilli(), set.cfg.RepeatAnswer.Std())
		switch state {
		case guessRepeated:
			return Decision{Verdict: protocol.Repeated, Delay: set.cfg.Tarpit.Std()}
		case guessAgain:
			t.again = true
			return Decision{}
		case guessNew:
			return Decision{}
		}
		if w == nil {
			// Nobody is ever first in this queue's turn: it is only woken by a
			// sentence.
			k := key{kind: byPair, prefix: t.addr, login: string(t.guess.hash[:])}
			if w = g.queues.join(k, nil); w == nil {
				return Decision{Verdict: protocol.Busy}
			}
		}
		select {
		case <-flight:
		case <-w.wake:
		case <-p.over():
			return Decision{Verdict: protocol.Busy}
		}
	}
}

// reserve waits until there is room for the attempt's points, or none.
func (g *Guard) reserve(p *patience, set *settings, t *try) (*Attempt, Decision) {
	var w *waiter
	defer func() { g.queues.leave(w) }()
	for {
		now := g.clock.now()
		g.acquaint(set, t, now) // a success while we waited may have changed it
		d := g.standing(set, t, now, false, true)
		if d.Verdict != protocol.Pass {
			return nil, d
		}
		simulated := g.standing(set, t, now, true, set.cfg.DryRun)
		if set.cfg.DryRun && simulated.Verdict != protocol.Pass {
			g.guesses.end(&t.guess, t.addr, now.UnixMilli(), false, false)
			return g.ghost(t, now, simulated)
		}
		claims := g.claims(set, t, now, simulated)
		if w == nil {
			if k, yes := g.queues.behind(claims); yes {
				if w = g.queues.join(k, nil); w == nil {
					return nil, Decision{Verdict: protocol.Busy}
				}
			}
		}
		if w == nil || g.queues.first(w) {
			grant, i := g.ledger.reserve(now, claims)
			switch {
			case grant == granted:
				return g.depart(set, t, claims, simulated)
			case grant == over:
				if g.overdue(set, t, &claims[i], now) {
					continue
				}
				return nil, g.overDecision(set, &claims[i])
			case w == nil || w.key != claims[i].key:
				if w = g.queues.join(claims[i].key, w); w == nil {
					return nil, Decision{Verdict: protocol.Busy}
				}
				continue
			}
		}
		select {
		case <-w.wake:
		case <-p.over():
			return nil, Decision{Verdict: protocol.Busy}
		}
	}
}

// depart lets a reserved attempt go, unless a ban fell since it was asked.
func (g *Guard) depart(set *settings, t *try, claims []claim, simulated Decision) (*Attempt, Decision) {
	now := g.clock.now()
	d := g.standing(set, t, now, false, false)
	if d.Verdict == protocol.Pass && !t.allowed && !g.pace.allow(t.addr, now.UnixMilli()) {
		d = Decision{Verdict: protocol.Busy, Rule: paceRule}
	}
	if d.Verdict != protocol.Pass {
		g.ledger.settle(now, claims, false, nil)
		g.queues.settled(claims)
		return nil, d
	}
	g.stats.inFlight.Add(1)
	return &Attempt{try: t, claims: claims, started: now}, Decision{Simulated: simulated.Rule}
}

// overdue brings a sentence into force that the settled points have earned
// without it: the limit was lowered, or a crash came between the points and
// the ban. It returns false while bans are suspended.
func (g *Guard) overdue(set *settings, t *try, c *claim, now time.Time) bool {
	if g.review(t.o.Upstream, now.UnixMilli()) {
		return false
	}
	if r := set.rules.named(c.rule); g.fleet != nil && r != nil &&
		g.fleet.awaitOther(sentenceKey{r.consequence, c.key, r.scopeOf(&t.o), r.dryRun}) {
		return true
	}
	g.pronounce(set, &t.o, &total{key: c.key, rule: c.rule, limit: c.limit}, now)
	return true
}

// overDecision says what a limit means whose settled points are reached while
// no sentence is in force because bans are suspended.
func (g *Guard) overDecision(set *settings, c *claim) Decision {
	d := Decision{Verdict: protocol.Busy, Rule: c.rule}
	if r := set.rules.named(c.rule); r != nil && r.consequence == guarded {
		d.Verdict = protocol.Guarded
	}
	return d
}

// claims gives what an attempt must reserve: the points of a failure under
// every rule that counts it.
func (g *Guard) claims(set *settings, t *try, now time.Time, simulated Decision) []claim {
	// Most credentials name one login, so there is one for each rule.
	out := make([]claim, 0, len(set.counting[protocol.AuthFailure]))
	crowded, crowdedDry := g.crowded(set, t, now)
	before := priors{g: g, addr: t.addr, now: now.UnixMilli()}
	for _, r := range set.counting[protocol.AuthFailure] {
		points := r.points[protocol.AuthFailure]
		if r.name == simulated.Rule {
			continue
		}
		c := claim{rule: r.name, points: points, value: t.value(r), terms: r.terms}
		switch r.key {
		case byAddress:
			if t.allowed || t.again || t.soft || r.excluded && !t.strange {
				continue
			}
			c.key = key{kind: byAddress, prefix: t.addr}
			c.points = before.severe(r, &t.o, points)
			if crowded || crowdedDry && r.dryRun {
				c.limit /= 2
			}
			// A familiar pair has its own budget where the address has none.
			c.yields = !t.strange
			if r.distinct == distinctLogin {
				out = g.spray(out, c, t, now)
				continue
			}
			out = append(out, c)
		case byNetwork:
			if t.allowed || r.excluded && !t.strange {
				continue
			}
			c.key, c.yields = key{kind: byNetwork, prefix: t.net}, !t.strange
			out = append(out, c)
		default:
			out = g.loginClaims(out, c, r, t)
		}
	}
	return out
}

// crowded tells whether the network of a stranger has used half of its limit.
// Its addresses then have half of theirs: what many do together is taken for
// one attack before the whole network is refused. dry tells the same of rules
// in a dry run, which lower only the limits of their like.
func (g *Guard) crowded(set *settings, t *try, now time.Time) (real, dry bool) {
	if t.allowed || !t.strange {
		return false, false
	}
	for _, r := range set.counting[protocol.AuthFailure] {
		if r.key != byNetwork {
			continue
		}
		sum := g.memory.sum(now, key{kind: byNetwork, prefix: t.net}, r.name)
		if over := 2*sum >= r.limit; r.dryRun {
			dry = dry || over
		} else {
			real = real || over
		}
	}
	return real, dry
}

// spray claims a point for each login that never succeeded from the network.
func (g *Guard) spray(out []claim, c claim, t *try, now time.Time) []claim {
	for _, login := range t.logins {
		if !g.places.everFrom(login, t.addr, now.UnixMilli()) {
			c.value = g.distinct(login)
			out = append(out, c)
		}
	}
	return out
}

// loginClaims claims points at each login, or at the login's own budget for a
// familiar place.
func (g *Guard) loginClaims(out []claim, c claim, r *rule, t *try) []claim {
	for i, login := range t.logins {
		c.key = key{kind: byLogin, login: login}
		c.yields = t.ticket[login]
		switch {
		case r.key == byPair:
			c.key = key{kind: byPair, prefix: t.addr, login: login}
		case t.familiar[i] != stranger:
			c.key = t.pairKey(i)
		}
		if r.distinct == distinctGuess {
			c.value = t.guess.at(t.net)
		}
		out = append(out, c)
	}
	return out
}

// value tells guesses apart in the windows of a rule.
func (t *try) value(r *rule) uint32 {
	if r.distinct == distinctGuess {
		return t.guess.value
	}
	return 0
}

// priors are how often an address was banned before. Most rules ban in one
// scope, so the answer about the last is kept.
type priors struct {
	g    *Guard
	addr netip.Prefix
	now  int64

	known   bool
	scope   string
	dryRun  bool
	repeats int
}

// severe gives the points of an offence for who was banned before.
func (p *priors) severe(r *rule, o *Origin, points milli) milli {
	if r.consequence != banned {
		return points
	}
	if scope := r.scopeOf(o); !p.known || p.scope != scope || p.dryRun != r.dryRun {
		p.known, p.scope, p.dryRun = true, scope, r.dryRun
		p.look()
	}
	if p.repeats == 0 {
		return points
	}
	return min(points*severity(p.repeats), max(r.limit, points))
}

func (p *priors) look() {
	p.repeats = 0
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	k := sentenceKey{banned, key{kind: byAddress, prefix: p.addr}, p.scope, p.dryRun}
	if s := p.g.sentences.get(k); s != nil && s.forget > p.now && !s.manual {
		p.repeats = int(s.repeats)
	}
}
