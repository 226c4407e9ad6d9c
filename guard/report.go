package guard

import (
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
	ev := at.event(now, e.Kind)
	ev.Code, ev.Recipient = e.Code, strings.ToLower(e.Recipient)
	ev.Login = set.logins.canonical(e.Login)
	if set.traps[ev.Recipient] && e.Kind != protocol.RelayDenied {
		ev.Kind = TrapRcpt
	}
	if login != "" || g.index.allowed(at.Addr, now.UnixMilli()) {
		g.tellEvent(ev, login != "", Decision{})
		return Decision{}
	}
	return g.score(set, &at, ev)
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
		if ev.Kind != protocol.GoodRcpt {
			g.lost.offended(g, o, now.UnixMilli())
		}
		g.sentence(set, o, g.ledger.charge(now, claims, ev), now)
		g.queues.settled(claims)
	}
	d := g.cut(o, now)
	d.Simulated = g.simulatedRule(set, o, now)
	g.tellEvent(ev, false, d)
	return d
}

// eventClaim gives what an event is worth under a rule.
func (g *Guard) eventClaim(r *rule, before *priors, o *Origin, ev *Event) (claim, bool) {
	c := claim{rule: r.name, points: r.points[ev.Kind], terms: r.terms, hard: ev.Kind != protocol.InvalidRcpt}
	switch {
	case ev.Kind == protocol.GoodRcpt && r.share && ev.Recipient != "":
		c.good, c.hard = true, false
		c.keep = int(shareUntil * r.limit.float() * (1/shareNeeded - 1))
	case c.points == 0:
		return c, false
	}
	if ev.Kind == protocol.InvalidRcpt || c.good {
		// RFC 5321 4.5.1 and RFC 2142: everybody may write there.
		local, _, _ := strings.Cut(ev.Recipient, "@")
		if local == "postmaster" || local == "abuse" {
			return c, false
		}
	}
	switch {
	case r.distinct == distinctRecipient && ev.Recipient != "" && ev.Kind != protocol.RelayDenied:
		c.value = g.distinct(ev.Recipient)
	case r.distinct == distinctLogin && ev.Login != "":
		c.value = g.distinct(ev.Login)
	}
	switch r.key {
	case byAddress:
		c.key = key{kind: byAddress, prefix: before.addr}
		if !c.good {
			c.points = before.severe(r, o, c.points)
		}
	case byNetwork:
		c.key = key{kind: byNetwork, prefix: network(o.Addr)}
	case byLogin:
		c.key = key{kind: byLogin, login: ev.Login}
	case byPair:
		c.key = key{kind: byPair, prefix: before.addr, login: ev.Login}
	}
	return c, c.key.kind < byLogin || ev.Login != ""
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
