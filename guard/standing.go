package guard

import (
	"net/netip"
	"time"

	"mailreeve/protocol"
)

// A try is a credential on its way, with what is known about where it comes
// from. Its secret is gone.
type try struct {
	o        Origin
	addr     netip.Prefix // at the configured width
	net      netip.Prefix
	allowed  bool
	logins   []string
	familiar []familiarity // of each login
	strange  bool          // of at least one
	guess    guess
	// again: the guess was scored at another address of the network.
	again bool
	// ticket: a login is guarded and this try may go nevertheless.
	ticket map[string]bool
	// ghost: a dry run lets it go; it leaves no trace.
	ghost bool
	// soft: the address is banned, but the familiar pair may pass.
	soft bool
}

// newTry looks at a credential. It forgets the secret.
func (g *Guard) newTry(set *settings, o *Origin, c *protocol.Credential, now time.Time) *try {
	t := &try{o: *o, addr: set.widths.address(o.Addr), net: network(o.Addr), logins: set.logins.all(c.Identities)}
	t.o.Addr = o.Addr.Unmap().WithZone("")
	t.allowed = g.index.allowed(t.o.Addr, now.UnixMilli())
	t.guess = g.hashGuess(t.logins, c.Secret, t.net)
	g.acquaint(set, t, now)
	return t
}

// acquaint looks up which logins know the place.
func (g *Guard) acquaint(set *settings, t *try, now time.Time) {
	t.familiar, t.strange = t.familiar[:0], len(t.logins) == 0
	for _, login := range t.logins {
		f := g.places.familiarity(login, t.addr, now.UnixMilli(), set.cfg.Familiar.Std())
		t.familiar = append(t.familiar, f)
		t.strange = t.strange || f == stranger
	}
}

// pairKey is the key of a login's own budget at a familiar place.
func (t *try) pairKey(i int) key {
	k := key{kind: byPair, prefix: t.addr, login: t.logins[i]}
	if t.familiar[i] == familiarNetwork {
		k.prefix = t.net
	}
	return k
}

// standing tells what stands in the way of a try: bans, networks that are
// refused, guarded logins. With simulated it asks the dry run's sentences.
// may says that a guarded login's trickle may be asked for a ticket.
func (g *Guard) standing(set *settings, t *try, now time.Time, simulated, may bool) Decision {
	if g.clear(t, now, simulated) {
		t.soft = false
		return Decision{}
	}
	g.mu.Lock()
	d, guardedBy := g.standingLocked(set, t, now.UnixMilli(), simulated)
	g.mu.Unlock()
	if d.Verdict != protocol.Pass {
		return d
	}
	for _, login := range guardedBy {
		if t.ticket[login] {
			continue
		}
		if !may || !g.ticket(set, t, login, now) {
			return Decision{Verdict: protocol.Guarded, Rule: "login"}
		}
		if t.ticket == nil {
			t.ticket = make(map[string]bool)
		}
		t.ticket[login] = true
	}
	return Decision{}
}

// clear tells, without a lock, that no sentence can stand in the way of a try:
// that is so for nearly all of them, several times each.
func (g *Guard) clear(t *try, now time.Time, simulated bool) bool {
	if simulated {
		return g.sentences.roll.classes.simulated.Load() == 0
	}
	return g.sentences.roll.classes.strict.Load() == 0 &&
		(t.allowed || g.index.lookup(t.o.Addr, now.UnixMilli(), "all", t.o.Scope, t.o.Listener, "auth") == 0)
}

// ticket asks a guarded login's trickle. Strict behaviour, without familiar
// places, has none.
func (g *Guard) ticket(set *settings, t *try, login string, now time.Time) bool {
	if set.cfg.Familiar == 0 || set.cfg.Trickle == 0 {
		return false
	}
	return g.ledger.ticket(now, &ticketAsk{
		login: login, network: t.net.String(), every: set.cfg.Trickle.Std(),
		known: g.places.knownNetwork(t.net, now.UnixMilli()),
	})
}

func (g *Guard) standingLocked(set *settings, t *try, now int64, simulated bool) (d Decision, guardedLogins []string) {
	if !t.allowed {
		if d := g.bannedLocked(t, now, simulated); d.Verdict != protocol.Pass {
			return d, nil
		}
		if t.strange {
			for _, k := range []key{{kind: byNetwork, prefix: t.net}, {kind: byAddress, prefix: t.addr}} {
				if s := g.sentences.active(sentenceKey{refused, k, "", simulated}, now); s != nil {
					return Decision{Verdict: protocol.Refused, Rule: s.rule}, nil
				}
			}
		}
	}
	for i, login := range t.logins {
		if t.familiar[i] != stranger {
			// A familiar place is exempt from the guard, but has its own.
			if s := g.sentences.active(sentenceKey{guarded, t.pairKey(i), "", simulated}, now); s != nil {
				return Decision{Verdict: protocol.Guarded, Rule: s.rule}, nil
			}
		} else if s := g.sentences.active(sentenceKey{guarded, key{kind: byLogin, login: login}, "", simulated}, now); s != nil {
			if g.opened[login] <= now && !(t.allowed && set.cfg.AllowGuarded) {
				guardedLogins = append(guardedLogins, login)
			}
		}
		at := key{kind: byPair, prefix: t.addr, login: login}
		if s := g.sentences.active(sentenceKey{refused, at, "", simulated}, now); s != nil {
			return Decision{Verdict: protocol.Refused, Rule: s.rule}, nil
		}
	}
	return Decision{}, guardedLogins
}

// bannedLocked tells whether a ban keeps a credential from the server. A ban
// in the connection's scope cuts; one in scope "auth" refuses credentials
// elsewhere; a soft one lets familiar pairs through and refuses the rest.
func (g *Guard) bannedLocked(t *try, now int64, simulated bool) Decision {
	t.soft = false
	for _, scope := range []string{"all", t.o.Scope, t.o.Listener, "auth"} {
		s := g.coveringLocked(t.o.Addr, scope, now, simulated)
		switch {
		case s == nil:
			continue
		case s.soft && !t.strange:
			t.soft = true
		case s.soft, scope == "auth" && t.o.Scope != "auth" && t.o.Listener != "auth":
			return Decision{Verdict: protocol.Refused, Rule: s.rule}
		default:
			return Decision{Verdict: protocol.Banned, Rule: s.rule}
		}
	}
	return Decision{}
}

// coveringLocked gives the ban in force on an address in a scope: its own
// before that of a wider network.
func (g *Guard) coveringLocked(a netip.Addr, scope string, now int64, simulated bool) *sentence {
	set := g.set.Load()
	own := key{kind: byAddress, prefix: set.widths.address(a)}
	if s := g.sentences.active(sentenceKey{banned, own, scope, simulated}, now); s != nil {
		return s
	}
	if simulated || g.index.lookup(a, now, scope) == 0 {
		return nil
	}
	for bits := a.BitLen(); bits > 0; bits-- {
		p, _ := a.Prefix(bits)
		for _, kind := range []keyKind{byAddress, byNetwork} {
			if s := g.sentences.active(sentenceKey{banned, key{kind: kind, prefix: p}, scope, false}, now); s != nil {
				return s
			}
		}
	}
	return &sentence{cause: cause{rule: blockedRule}} // by configuration
}

// blockedRule is the rule that blocked-ip in the configuration goes by, and
// manualRule that of bans by hand.
const (
	blockedRule = "blocked-ip"
	manualRule  = "manual"
)
