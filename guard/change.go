package guard

import (
	"net/netip"
	"time"
)

// ChangeKind says what changed.
type ChangeKind uint8

const (
	// BanAdded: a ban came into force, or was widened or lengthened.
	BanAdded ChangeKind = iota
	// BanRemoved: a ban ended, by time or by hand.
	BanRemoved
	// AllowAdded and AllowRemoved: an allow entry came or went.
	AllowAdded
	AllowRemoved
)

// A Change is a ban, unban or allow that took effect.
type Change struct {
	Kind   ChangeKind
	Prefix netip.Prefix
	// Scope is a listener's scope, a listener's name, or "all".
	Scope string
	Rule  string
	// Soft tells that a ban is soft: connections are greeted still.
	Soft bool
	// Until is when a ban ends; zero: never.
	Until time.Time
}

// Covers tells whether the change concerns connections of that origin.
func (c Change) Covers(o *Origin) bool {
	return c.Prefix.Contains(o.Addr.Unmap()) &&
		(c.Scope == "all" || c.Scope == o.Scope || c.Scope == o.Listener)
}

// Subscribe has f called with every change, before the call that made the
// change returns. f must not call the guard and must not wait for a
// connection. A simulated ban is no change. What is in force already is no
// change either; InForce tells of it.
func (g *Guard) Subscribe(f func(Change)) {
	g.changes.Lock()
	defer g.changes.Unlock()
	g.subscribers = append(g.subscribers, f)
}

// InForce calls f with every ban that is in force, or every allow entry, as the
// changes of that kind (BanAdded, AllowAdded) that brought them about. f must be
// quick and must not call the guard.
func (g *Guard) InForce(kind ChangeKind, f func(Change)) {
	now := g.clock.now().UnixMilli()
	g.mu.Lock()
	defer g.mu.Unlock()
	if kind == AllowAdded {
		for p := range g.index.allow.Load().All() {
			f(Change{Kind: AllowAdded, Prefix: p, Scope: "all"})
		}
		return
	}
	g.sentences.walk(&g.mu, func(s *sentence) {
		if s.kind == banned && !s.simulated && s.active && s.until > now {
			f(s.change(BanAdded))
		}
	})
	for p := range g.blocked {
		f(Change{Kind: BanAdded, Prefix: p, Scope: "all", Rule: blockedRule})
	}
}
