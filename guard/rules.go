package guard

import (
	"time"

	"mailreeve/protocol"
)

// Kinds that the guard finds itself, from the lists in [Config].
const (
	// HoneypotLogin: a login that nobody has was tried.
	HoneypotLogin protocol.Kind = "honeypot-login"
	// TrapRcpt: a recipient that nobody has was named.
	TrapRcpt protocol.Kind = "trap-rcpt"
)

// kinds are all kinds of events that a rule may give points to.
var kinds = []protocol.Kind{
	protocol.AuthFailure, HoneypotLogin,
	protocol.InvalidRcpt, protocol.RelayDenied, TrapRcpt,
	protocol.Loitering,
	protocol.EarlyTalk, protocol.ForeignProtocol, protocol.BareNewline,
	protocol.Injection, protocol.Pipelining, protocol.BadCommand,
	protocol.TooManyErrors, protocol.LineTooLong, protocol.PlaintextAuth,
	protocol.UnknownMechanism, protocol.AuthAborted, protocol.AuthNotOffered,
	protocol.HeloRejected, protocol.SenderRejected, protocol.ClientRejected,
	protocol.ListedClient, protocol.ContentRejected,
	protocol.SlowDrip, protocol.TLSFailure, protocol.LeftSilently, protocol.LeftEarly,
	protocol.TooManyConnections, protocol.ConnectionRate,
}

// builtin gives the built-in rules. Their limits are the configuration's.
func builtin(c *Config) []RuleConfig {
	failure := map[protocol.Kind]float64{protocol.AuthFailure: 1}
	return []RuleConfig{
		{
			Name: "authentication", Key: "address", Limit: c.Authentication, Scope: "auth",
			// A honeypot login bans at once, whatever the limit.
			Points: map[protocol.Kind]float64{protocol.AuthFailure: 1, HoneypotLogin: max(100, c.Authentication.Points)},
		},
		{Name: "authentication-slow", Key: "address", Limit: c.AuthenticationSlow, Scope: "auth", Points: failure, FamiliarExcluded: true},
		{Name: "login", Key: "login", Limit: c.Login, Consequence: "guard", Points: failure, Time: c.GuardTime},
		{Name: "spray", Key: "address", Limit: c.Spray, Scope: "auth", Points: failure, Distinct: "login"},
		{Name: "network", Key: "network", Limit: c.Network, Consequence: "refuse", Points: failure, Time: c.GuardTime, FamiliarExcluded: true},
		{
			Name: "invalid-rcpt", Key: "address", Limit: c.InvalidRcpt, Share: true, Distinct: "recipient",
			Points: map[protocol.Kind]float64{protocol.InvalidRcpt: 1, protocol.RelayDenied: 3, TrapRcpt: max(35, c.InvalidRcpt.Points)},
		},
		{Name: "loitering", Key: "address", Limit: c.Loitering, Points: map[protocol.Kind]float64{protocol.Loitering: 1}},
		{Name: "abuse", Key: "address", Limit: c.Abuse, Points: abusePoints()},
	}
}

// abusePoints are the points of the built-in rule abuse. What ordinary clients
// do while they look for their settings must not add up: a phone that tries
// every port and mechanism once makes about 3 points a day.
func abusePoints() map[protocol.Kind]float64 {
	return map[protocol.Kind]float64{
		protocol.EarlyTalk:        3,   // only programs that do not read do this
		protocol.ForeignProtocol:  5,   // HTTP and the like: a scanner
		protocol.BareNewline:      1,   // old mailers do it too
		protocol.Injection:        10,  // nobody does this by mistake
		protocol.Pipelining:       1,   // bulk senders
		protocol.BadCommand:       0.2, // clients probe
		protocol.TooManyErrors:    2,   // the server has lost its patience
		protocol.LineTooLong:      0.5,
		protocol.PlaintextAuth:    0.5, // a client without TLS set, again and again
		protocol.UnknownMechanism: 0.2,
		protocol.AuthAborted:      0.3,
		protocol.AuthNotOffered:   0.5, // Apple Mail tries port 25
		protocol.HeloRejected:     1,
		protocol.SenderRejected:   0.5, // often the sender's DNS in trouble
		protocol.ClientRejected:   0.5, // no reverse name: not always a spammer
		protocol.ListedClient:     3,   // a blocklist says so
		protocol.ContentRejected:  1,
		protocol.SlowDrip:         1,

		// For rules of the operator's own only. Monitors leave without a word
		// every minute, phones try TLS where there is none, and whom we refuse
		// for coming too often has been dealt with: tls-failure, left-silently,
		// left-early, too-many-connections, connection-rate.
	}
}

// distinct is what a rule counts once.
type distinct uint8

const (
	everyEvent distinct = iota
	distinctGuess
	distinctLogin
	distinctRecipient
)

// sentenceKind is what follows when a rule's limit is reached.
type sentenceKind uint8

const (
	banned  sentenceKind = iota // an address or network is kept out
	guarded                     // a login is closed to strangers
	refused                     // credentials of strangers are refused
	delayed                     // refusals are released late
)

// String gives the kind's name, as in [Ban.Kind].
func (k sentenceKind) String() string {
	return [...]string{"ban", "guard", "refuse", "delay"}[k]
}

// A rule is a RuleConfig made ready.
type rule struct {
	terms
	name        string
	key         keyKind
	points      map[protocol.Kind]milli
	distinct    distinct
	consequence sentenceKind
	scope       string
	first, max  time.Duration // of the sentence
	growth      float64
	excluded    bool // familiar pairs excluded
	dryRun      bool
	written     string // the limit as it is written
}

// rules are all rules in force, in order.
type rules []*rule

// newRules makes the rules of a valid configuration.
func newRules(c *Config) rules {
	var all []RuleConfig
	own := make(map[string]bool)
	for _, r := range c.Rules {
		own[r.Name] = true
	}
	for _, r := range builtin(c) {
		if !own[r.Name] {
			all = append(all, r)
		}
	}
	var out rules
	for _, r := range append(all, c.Rules...) {
		if !r.Limit.Off() {
			out = append(out, newRule(&r, c))
		}
	}
	return out
}

func newRule(rc *RuleConfig, c *Config) *rule {
	r := &rule{
		name:     rc.Name,
		scope:    rc.Scope,
		first:    rc.Time.Std(),
		max:      rc.MaxTime.Std(),
		growth:   rc.Growth,
		excluded: rc.FamiliarExcluded,
		dryRun:   rc.DryRun || c.DryRun,
		points:   make(map[protocol.Kind]milli, len(rc.Points)),
		written:  rc.Limit.String(),
		terms: terms{
			limit: toMilli(rc.Limit.Points), period: rc.Limit.Period.Std(),
			keep: maxMarks, share: rc.Share,
		},
	}
	for i, name := range keyNames {
		if name == rc.Key {
			r.key = keyKind(i)
		}
	}
	for i, name := range consequenceNames[1:] {
		if name == rc.Consequence {
			r.consequence = sentenceKind(i)
		}
	}
	for kind, p := range rc.Points {
		r.points[kind] = toMilli(p)
	}
	switch rc.Distinct {
	case "guess":
		r.distinct = distinctGuess
	case "login":
		r.distinct = distinctLogin
	case "recipient":
		r.distinct = distinctRecipient
	case "":
		if r.points[protocol.AuthFailure] > 0 {
			r.distinct = distinctGuess
		}
	}
	if r.first == 0 {
		r.first = c.BanTime.Std()
	}
	if r.max == 0 {
		r.max = max(c.MaxBanTime.Std(), r.first)
	}
	if r.growth == 0 {
		r.growth = 2
	}
	return r
}

// byKind gives the rules that count events of each kind, in order. Most kinds
// are one rule's matter, and a good recipient is noted for each of every
// message.
func (rs rules) byKind() map[protocol.Kind]rules {
	counting := make(map[protocol.Kind]rules)
	for _, r := range rs {
		for kind, p := range r.points {
			if p > 0 {
				counting[kind] = append(counting[kind], r)
			}
		}
		if r.share {
			counting[protocol.GoodRcpt] = append(counting[protocol.GoodRcpt], r)
		}
	}
	return counting
}

// named gives the rule of that name, or nil.
func (rs rules) named(name string) *rule {
	for _, r := range rs {
		if r.name == name {
			return r
		}
	}
	return nil
}

// terms gives what a rule's windows keep to.
func (rs rules) terms(name string) (terms, bool) {
	if r := rs.named(name); r != nil {
		return r.terms, true
	}
	return terms{}, false
}
