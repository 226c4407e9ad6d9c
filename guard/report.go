package guard

import (
	"net/netip"
	"strings"
	"time"

	"mailreeve/protocol"
)

// Report tells an event. login is the login that the connection is logged in
// as, "" before: what ordinary clients do after a login scores nothing. The
// verdict is Pass, or Banned if the client must be cut.
func (g *Guard) Report(o *Origin, login string, e protocol.Event) Decision {
	set, now := g.set.Load(), g.clock.now()
	at := *o
	at.Addr = o.Addr.Unmap().WithZone("")
	g.stats.event(e.Kind, o.Listener)
	e.Recipient, e.Login = strings.ToLower(e.Recipient), set.logins.canonical(e.Login)
	if set.traps[e.Recipient] && e.Kind != protocol.RelayDenied {
		e.Kind = TrapRcpt
	}
	counts := login == "" && !g.index.allowed(at.Addr, now.UnixMilli())
	if counts && e.Kind != protocol.GoodRcpt {
		return g.score(set, &at, at.told(now, &e))
	}
	var d Decision
	if counts {
		d = g.delivered(set, &at, &e, now)
	}
	if g.watch.any.Load() != 0 {
		g.tellEvent(at.told(now, &e), login != "", d)
	}
	return d
}

// told gives an event that was told of a client there.
func (o *Origin) told(now time.Time, e *protocol.Event) *Event {
	ev := o.event(now, e.Kind)
	ev.Code, ev.Recipient, ev.Login = e.Code, e.Recipient, e.Login
	return ev
}

// score charges an event to every rule that counts it.
func (g *Guard) score(set *settings, o *Origin, ev *Event) Decision {
	now := ev.Time
	simulated := g.simulatedRule(set, o, now)
	before := priors{g: g, addr: set.widths.address(o.Addr), now: now.UnixMilli()}
	var claims []claim
	for _, r := range set.counting[ev.Kind] {
		if r.name == simulated || simulated != "" && set.cfg.DryRun {
			continue
		}
		if c, ok := g.eventClaim(r, &before, o, ev); ok {
			claims = append(claims, c)
		}
	}
	if len(claims) > 0 {
		g.lost.offended(g, o, now.UnixMilli())
		g.sentence(set, o, g.ledger.charge(now, claims, ev), now)
		g.queues.settled(claims)
	}
	d := g.cut(o, now)
	d.Simulated = g.simulatedRule(set, o, now)
	g.tellEvent(ev, false, d)
	return d
}

// delivered notes a recipient whose message was accepted, for the rules that
// mind what share of a sender's recipients is bad. It is the one event of every
// message, so nothing is made for it that nobody asks for.
func (g *Guard) delivered(set *settings, o *Origin, e *protocol.Event, now time.Time) Decision {
	simulated := g.simulatedRule(set, o, now)
	if e.Recipient != "" && !everybodys(e.Recipient) && !(simulated != "" && set.cfg.DryRun) {
		for _, r := range set.counting[protocol.GoodRcpt] {
			k, ok := r.keyOf(o, set.widths.address(o.Addr), e.Login)
			if !ok || r.name == simulated {
				continue
			}
			g.ledger.note(now, claim{
				key: k, rule: r.name, terms: r.goodTerms(), good: true, value: g.valueOf(r, e.Kind, e.Recipient, e.Login),
			})
		}
	}
	d := g.cut(o, now)
	d.Simulated = simulated
	return d
}

// goodTerms are the terms of a rule's good recipients: as many are kept as can
// protect their sender.
func (r *rule) goodTerms() terms {
	t := r.terms
	t.keep = int(shareUntil * r.limit.float() * (1/shareNeeded - 1))
	return t
}

// eventClaim gives what an event is worth under a rule.
func (g *Guard) eventClaim(r *rule, before *priors, o *Origin, ev *Event) (claim, bool) {
	if ev.Kind == protocol.InvalidRcpt && everybodys(ev.Recipient) {
		return claim{}, false
	}
	k, ok := r.keyOf(o, before.addr, ev.Login)
	c := claim{
		key: k, rule: r.name, points: r.points[ev.Kind], terms: r.terms, hard: ev.Kind != protocol.InvalidRcpt,
		value: g.valueOf(r, ev.Kind, ev.Recipient, ev.Login),
	}
	if r.key == byAddress {
		c.points = before.severe(r, o, c.points)
	}
	return c, ok
}

// everybodys tells whether everybody may write to a recipient: RFC 5321 4.5.1
// and RFC 2142.
func everybodys(recipient string) bool {
	local, _, _ := strings.Cut(recipient, "@")
	return local == "postmaster" || local == "abuse"
}

// keyOf gives the key at which a rule counts an event. There is none if it
// counts by login and none was named.
func (r *rule) keyOf(o *Origin, addr netip.Prefix, login string) (key, bool) {
	switch r.key {
	case byAddress:
		return key{kind: byAddress, prefix: addr}, true
	case byNetwork:
		return key{kind: byNetwork, prefix: network(o.Addr)}, true
	case byLogin:
		return key{kind: byLogin, login: login}, login != ""
	}
	return key{kind: byPair, prefix: addr, login: login}, login != ""
}

// valueOf gives the value by which a rule counts events of a recipient or login
// once, 0 if it counts them all.
func (g *Guard) valueOf(r *rule, kind protocol.Kind, recipient, login string) uint32 {
	switch {
	case r.distinct == distinctRecipient && recipient != "" && kind != protocol.RelayDenied:
		return g.distinct(recipient)
	case r.distinct == distinctLogin && login != "":
		return g.distinct(login)
	}
	return 0
}

// cut tells whether a connection from there must end.
func (g *Guard) cut(o *Origin, now time.Time) Decision {
	ms := now.UnixMilli()
	if g.index.lookup(o.Addr, ms, o.Scope, o.Listener, "all") == 0 || g.index.allowed(o.Addr, ms) {
		return Decision{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, scope := range []string{o.Scope, o.Listener, "all"} {
		if s := g.coveringLocked(o.Addr, scope, ms, false); s != nil {
			return Decision{Verdict: protocol.Banned, Rule: s.rule}
		}
	}
	return Decision{}
}

// simulatedRule gives the rule that would ban the address in the origin's
// scope, were it not for a dry run.
func (g *Guard) simulatedRule(set *settings, o *Origin, now time.Time) string {
	if g.sentences.roll.classes.simulated.Load() == 0 {
		return ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, scope := range []string{o.Scope, o.Listener, "all"} {
		if s := g.coveringLocked(o.Addr, scope, now.UnixMilli(), true); s != nil {
			return s.rule
		}
	}
	return ""
}
