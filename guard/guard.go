// Package guard is the judge: events in, verdicts out.
//
// The data path needs four calls: [Guard.Admit] when a connection arrives,
// [Guard.Attempt] before a credential goes to the server, [Guard.Settle] with
// the server's answer, and [Guard.Report] for everything else. Every call
// carries an [Origin]. [Guard.Subscribe] delivers what changed.
package guard

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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

// Options is what the guard needs beside its configuration.
type Options struct {
	// Store says where what must survive a restart is kept.
	Store StoreConfig
	// Log takes bans, unbans and warnings; nil: slog.Default().
	Log *slog.Logger
	// Local are loopback, our own addresses and the servers', for
	// exempt-local. Loopback is always meant.
	Local []netip.Prefix
	// Trusted are the peers that send PROXY headers; they are never banned.
	Trusted []netip.Prefix
	// Aliases are the lines of alias-file: alias to login.
	Aliases map[string]string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Guard is the judge. Its methods are safe for concurrent use.
type Guard struct{}

// Open makes a guard with the state that the store holds.
func Open(cfg Config, opt Options) (*Guard, error) { return &Guard{}, nil }

// Close writes what is not yet written and closes the store. Attempts that
// wait are answered Busy.
func (g *Guard) Close() error { return nil }

// Reconfigure takes another configuration; state and running attempts stay.
// Of opt, Store, Log and Now are not looked at. On an error nothing changes.
func (g *Guard) Reconfigure(cfg Config, opt Options) error { return nil }

// SetAllowedNames tells what the host names in allowed-ip resolve to.
func (g *Guard) SetAllowedNames(names map[string][]netip.Addr) {}

// A Decision is the guard's answer about a credential or an event.
type Decision struct {
	Verdict protocol.Verdict
	// Rule is the rule that decided, "" with Pass.
	Rule string
	// Simulated is the rule that would have decided, were it not for a dry run.
	Simulated string
	// Delay is how long to hold the answer back; mostly zero.
	Delay time.Duration
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
	// Soft tells that a ban is soft: connections are greeted still.
	Soft bool
	// Until is when a ban or an allow entry ends; zero: never.
	Until time.Time
}

// Covers tells whether the change concerns connections of that origin.
func (c Change) Covers(o *Origin) bool {
	return c.Prefix.Contains(o.Addr) &&
		(c.Scope == "all" || c.Scope == o.Scope || c.Scope == o.Listener)
}

// Subscribe has f called with every change, before the call that made the
// change returns. f must not call the guard and must not wait for a
// connection. A simulated ban is no change.
func (g *Guard) Subscribe(f func(Change)) {}

// Follow has f called with every event, for "events --follow" and the event
// log. f must be quick and must not call the guard. stop ends it.
func (g *Guard) Follow(f func(Event)) (stop func()) { return func() {} }

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

// Report tells an event. The verdict is Pass or Banned. The address is that
// of o; e.Login is used if login is empty.
func (g *Guard) Report(o *Origin, login string, e protocol.Event) Decision { return Decision{} }

// ReportDial tells whether an upstream could be dialled. Failures in a row
// defer bans for what happens behind it.
func (g *Guard) ReportDial(upstream string, ok bool) {}

// Bans lists bans.
func (g *Guard) Bans(f BanFilter) []Ban { return nil }

// AddBan bans by hand.
func (g *Guard) AddBan(r BanRequest) (Ban, error) { return Ban{}, nil }

// Unban forgives: bans, points and history in one step.
func (g *Guard) Unban(r UnbanRequest) (Removed, error) { return Removed{}, nil }

// Allow adds an allow entry; Disallow removes those of an address, network or
// login that a command added, and tells how many.
func (g *Guard) Allow(r AllowRequest) (Allowed, error) { return Allowed{}, nil }
func (g *Guard) Disallow(target string) (int, error)   { return 0, nil }
func (g *Guard) Allowed() []Allowed                    { return nil }
func (g *Guard) Why(target string) (Why, error)        { return Why{}, nil }
func (g *Guard) Logins() []GuardedLogin                { return nil }
func (g *Guard) Top(n int) Top                         { return Top{} }
func (g *Guard) Status() Status                        { return Status{} }
func (g *Guard) Describe(ch chan<- *prometheus.Desc)   {}
func (g *Guard) Collect(ch chan<- prometheus.Metric)   {}
