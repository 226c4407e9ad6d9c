package guard

import (
	"net/netip"
	"time"

	"mailreeve/protocol"
)

// An Event is something that was scored, refused or decided, as the operator
// sees it. It never holds a secret. Logins are attacker's text: quote them.
type Event struct {
	// ID names the event in a shared store; "" without one.
	ID       string        `json:"id,omitempty"`
	Time     time.Time     `json:"time"`
	Kind     protocol.Kind `json:"kind"`
	Addr     netip.Addr    `json:"addr"`
	Listener string        `json:"listener,omitempty"`
	Scope    string        `json:"scope,omitempty"`
	Protocol string        `json:"protocol,omitempty"`
	Upstream string        `json:"upstream,omitempty"`
	Conn     uint64        `json:"conn,omitempty"`
	Login    string        `json:"login,omitempty"`
	// Recipient is the recipient in question, if any.
	Recipient string `json:"recipient,omitempty"`
	Code      string `json:"code,omitempty"`
	// Guess is 16 bits of a keyed hash of the credential, in hexadecimal: the
	// same for the same guess, and of no use to who does not know it.
	Guess string `json:"guess,omitempty"`
	// Familiar tells that the login succeeded from there lately.
	Familiar bool `json:"familiar,omitempty"`
	// Outcome and Verdict are set on events about credentials.
	Outcome string `json:"outcome,omitempty"`
	Verdict string `json:"verdict,omitempty"`
	// Rule is the rule that decided, with a verdict or a ban.
	Rule string `json:"rule,omitempty"`
	// Took is how long the server took to answer.
	Took Duration `json:"took,omitempty"`
}

// A Scored event is an event with the points that a rule gave it.
type Scored struct {
	Event
	Points float64 `json:"points"`
	// Expires is when the points stop counting; zero in a ban's evidence.
	Expires time.Time `json:"expires,omitzero"`
	// Folded is how many further events this line sums up, whose detail was
	// not kept.
	Folded int `json:"folded,omitempty"`
}

// A Ban is a ban on an address or network, or the guarding of a login.
type Ban struct {
	// Target is the address, network or login, as it is printed.
	Target string `json:"target"`
	// Kind is "ban", "guard" (a login closed to strangers), "refuse"
	// (credentials of strangers there refused) or "delay".
	Kind   string       `json:"kind"`
	Prefix netip.Prefix `json:"prefix,omitzero"`
	Login  string       `json:"login,omitempty"`
	Scope  string       `json:"scope,omitempty"`
	Rule   string       `json:"rule"`
	Reason string       `json:"reason,omitempty"`
	Since  time.Time    `json:"since"`
	// Until is when it ends; zero: never.
	Until time.Time `json:"until,omitzero"`
	// Count is the how manieth it is, for growth.
	Count int `json:"count"`
	// Soft tells that the address had a login success lately, so that its
	// familiar logins still pass.
	Soft bool `json:"soft,omitempty"`
	// Simulated tells that it is a dry run.
	Simulated bool `json:"simulated,omitempty"`
	// Score is the points that led to it, the sum over Events.
	Score  float64  `json:"score,omitempty"`
	Limit  string   `json:"limit,omitempty"`
	Events []Scored `json:"events,omitempty"`
	// Missing says why Reason and Events are not there although there were
	// some; "" mostly.
	Missing string `json:"missing,omitempty"`
}

// Forever tells that the ban has no end.
func (b *Ban) Forever() bool { return b.Until.IsZero() }

// A BanFilter chooses bans; its zero value chooses all addresses' and
// networks' bans that are in force.
type BanFilter struct {
	Scope string
	Rule  string
	// Within leaves what lies in this network.
	Within netip.Prefix
	// Kind is as in Ban; "" means "ban", "any" means all.
	Kind string
	// Evidence has Events filled in.
	Evidence bool
	// Sort is "until" (the default, soonest end first), "since", "target" or
	// "rule".
	Sort string
}

// A BanRequest is a ban by hand.
type BanRequest struct {
	// Target is an address or a network.
	Target string `json:"target"`
	// Scope is "auth", "mx", "all", a scope or a listener's name; "": "all".
	Scope string `json:"scope,omitempty"`
	// For is how long; zero: ban-time, or as long as a ban that is in force
	// lasts, if that is longer.
	For Duration `json:"for,omitempty"`
	// Reason; "": that of a ban that is in force, if any.
	Reason string `json:"reason,omitempty"`
}

// An Ordered is a ban by hand as it stands now.
type Ordered struct {
	Ban
	// Before is the ban that was in force in its place; nil if none was.
	Before *Ban `json:"before,omitempty"`
}

// An UnbanRequest says what to forgive. Target is an address, a network
// (everything in it), a login, or "all".
type UnbanRequest struct {
	Target string `json:"target"`
	// Rule, if not empty, leaves other rules' bans and points alone.
	Rule string `json:"rule,omitempty"`
}

// Removed says what an unban removed.
type Removed struct {
	Bans []Ban `json:"bans"`
	// Points is the sum of points cleared, over Counters windows.
	Points   float64 `json:"points"`
	Counters int     `json:"counters"`
	// History is how many ended bans were forgotten.
	History int `json:"history"`
	// Remaining are bans and refusals that still cover the target, of wider
	// networks.
	Remaining []Ban `json:"remaining,omitempty"`
}

// An AllowRequest is an allow entry by hand: of an address or network, or of a
// login, which is then open to strangers even while guarded.
type AllowRequest struct {
	// Target is an address or network. Login is a login; one of both is set.
	Target string   `json:"target,omitempty"`
	Login  string   `json:"login,omitempty"`
	For    Duration `json:"for,omitempty"` // zero: Forever
	Reason string   `json:"reason,omitempty"`
}

// An Allowed is an allow entry.
type Allowed struct {
	Prefix netip.Prefix `json:"prefix,omitzero"`
	Login  string       `json:"login,omitempty"`
	// Source is "config", "local", "name" or "command".
	Source string    `json:"source"`
	Name   string    `json:"name,omitempty"`
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// A Why explains where an address, network or login stands.
type Why struct {
	Target string `json:"target"`
	// Bans are those in force on it, with evidence; Past those that ended and
	// still count for growth.
	Bans []Ban `json:"bans"`
	Past []Ban `json:"past,omitempty"`
	// Scores are the counters, each with the events that add up to it.
	Scores []Score `json:"scores"`
	// Allowed are the allow entries that cover it.
	Allowed []Allowed `json:"allowed,omitempty"`
	// Places are a login's familiar places.
	Places []Place `json:"places,omitempty"`
}

// A Score is one counter: a rule at a key.
type Score struct {
	Rule    string  `json:"rule"`
	Key     string  `json:"key"`
	Points  float64 `json:"points"`
	Pending float64 `json:"pending,omitempty"`
	Limit   string  `json:"limit"`
	// Events are the events that add up to Points.
	Events []Scored `json:"events"`
}

// A Place is where a login succeeded.
type Place struct {
	Addr netip.Prefix `json:"addr"`
	Last time.Time    `json:"last"`
}

// A GuardedLogin is a login that is closed to strangers.
type GuardedLogin struct {
	Login     string    `json:"login"`
	Since     time.Time `json:"since"`
	Until     time.Time `json:"until,omitzero"`
	Count     int       `json:"count"`
	Simulated bool      `json:"simulated,omitempty"`
	Places    []Place   `json:"places,omitempty"`
}

// A Top lists the keys with the most points.
type Top struct {
	Addresses []Score `json:"addresses"`
	Networks  []Score `json:"networks"`
	Logins    []Score `json:"logins"`
}

// A Status is the guard's state in a few numbers.
type Status struct {
	Bans      int            `json:"bans"`
	BansTotal uint64         `json:"bans_total"`
	ByRule    map[string]int `json:"by_rule,omitempty"`
	Simulated int            `json:"simulated,omitempty"`
	Guarded   int            `json:"guarded_logins"`
	Addresses int            `json:"tracked_addresses"`
	Networks  int            `json:"tracked_networks"`
	Logins    int            `json:"tracked_logins"`
	Waiting   int            `json:"waiting"`
	Evictions uint64         `json:"evictions"`
	DryRun    bool           `json:"dry_run,omitempty"`
	// Suspended are the upstreams in trouble, whose failures ban nobody now.
	Suspended []string `json:"suspended,omitempty"`
	// LostSource is the private address that almost all failures come from.
	LostSource netip.Addr `json:"lost_source,omitzero"`
	// FalseBans is how many bans of late hit an address that logged in soon
	// after, and FalseBanRate their share.
	FalseBans    int         `json:"false_bans"`
	FalseBanRate float64     `json:"false_ban_rate"`
	Store        StoreStatus `json:"store"`
}

// A StoreStatus is the store's state.
type StoreStatus struct {
	Kind string `json:"kind"`
	Path string `json:"path,omitempty"`
	// Healthy is false while what is decided cannot be made durable.
	Healthy bool   `json:"healthy"`
	Error   string `json:"error,omitempty"`
	// Recovered says, after a damaged file was moved aside, where it is and
	// what was saved.
	Recovered string `json:"recovered,omitempty"`
	Records   int    `json:"records"`
	// Pending is how many records wait to be written.
	Pending int `json:"pending,omitempty"`
	// Shared is the state of the store that the fleet shares, if there is one.
	Shared *SharedStatus `json:"shared,omitempty"`
}

// A SharedStatus is the state of the store that a fleet shares.
type SharedStatus struct {
	// Node is this node's name in the fleet.
	Node string `json:"node"`
	// Connected is false while the store is away and this node goes on alone.
	Connected bool      `json:"connected"`
	Error     string    `json:"error,omitempty"`
	AwaySince time.Time `json:"away_since,omitzero"`
	// Buffered are the counts, Pending the bans and places, that the store
	// has not been told.
	Buffered int `json:"buffered"`
	Pending  int `json:"pending"`
	// Timeouts counts credentials decided here because the store did not
	// answer in time, Outages how often it was away, Ignored its values that
	// made no sense.
	Timeouts uint64 `json:"timeouts"`
	Outages  uint64 `json:"outages"`
	Ignored  uint64 `json:"ignored"`
}
