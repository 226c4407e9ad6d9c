// Package guard is the judge: events in, verdicts out.
//
// The data path needs four calls: [Guard.Admit] when a connection arrives,
// [Guard.Attempt] before a credential goes to the server, [Guard.Settle] with
// the server's answer, and [Guard.Report] for everything else. Every call
// carries an [Origin]. [Guard.Subscribe] delivers what changed.
package guard

import (
	"context"
	"net/netip"

	"mailreeve/protocol"
)

// An Origin says where something happened.
type Origin struct {
	// Addr is the client's address, unmapped and without a zone.
	Addr netip.Addr
	// Listener and Scope are the listener's name and scope.
	Listener string
	Scope    string
	// Protocol and Upstream are names from the configuration.
	Protocol string
	Upstream string
	// Conn is the connection's number, for the log.
	Conn uint64
}

// Guard is the judge. Its methods are safe for concurrent use.
type Guard struct{}

// A Decision is the guard's answer about a credential.
type Decision struct {
	Verdict protocol.Verdict
	// Rule is the rule that decided, "" with Pass.
	Rule string
}

// An Attempt is a credential that may go to the server, with its reservations.
// It must be settled exactly once.
type Attempt struct{}

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
}

// Covers tells whether the change concerns connections of that origin.
func (c Change) Covers(o *Origin) bool {
	return c.Prefix.Contains(o.Addr) &&
		(c.Scope == "all" || c.Scope == o.Scope || c.Scope == o.Listener)
}

// Subscribe has f called with every change, before the call that made the
// change returns. f must not call the guard and must not wait for a
// connection.
func (g *Guard) Subscribe(f func(Change)) {}

// Admit tells whether a connection may come in: Pass, Soft or Banned. It reads
// memory only and never waits.
func (g *Guard) Admit(o *Origin) protocol.Verdict { return protocol.Pass }

// Attempt asks for a credential to go to the server. With Pass it has reserved
// its points and the attempt must be settled; with any other verdict the
// attempt is nil. It may wait for other attempts to be settled, until ctx ends
// or at most 30 s. c.Secret is not used after the return.
func (g *Guard) Attempt(ctx context.Context, o *Origin, c *protocol.Credential) (*Attempt, Decision) {
	return &Attempt{}, Decision{}
}

// Settle tells what came of an attempt. The verdict is Pass if the server's
// reply may be released, Banned if the client must be cut instead.
func (g *Guard) Settle(a *Attempt, out protocol.Outcome, code string) Decision { return Decision{} }

// Report tells an event. The verdict is Pass or Banned.
func (g *Guard) Report(o *Origin, login string, e protocol.Event) Decision { return Decision{} }
