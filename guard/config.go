package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"mailreeve/protocol"
)

// A Config is the [guard] table of the configuration. Its zero value switches
// every rule off; start from [DefaultConfig].
type Config struct {
	// The limits of the built-in rules, "points/period" or "off".

	// Authentication limits wrong passwords by address.
	Authentication Limit `toml:"authentication"`
	// AuthenticationSlow catches who stays under Authentication; what comes
	// from a login's familiar places does not count.
	AuthenticationSlow Limit `toml:"authentication-slow"`
	// Login limits wrong passwords by login; past it the login is guarded.
	Login Limit `toml:"login"`
	// Spray limits distinct logins that failed, by address.
	Spray Limit `toml:"spray"`
	// Network limits wrong passwords by /24 or /48; past it strangers there
	// may not log in. Nobody is banned for it.
	Network Limit `toml:"network"`
	// InvalidRcpt limits distinct unknown recipients by address.
	InvalidRcpt Limit `toml:"invalid-rcpt"`
	// Loitering limits connections that did nothing, by address.
	Loitering Limit `toml:"loitering"`
	// Abuse limits breaches of protocol, by address.
	Abuse Limit `toml:"abuse"`

	// Familiar is for how long a place where a login succeeded is familiar to
	// it. Zero: no place ever is.
	Familiar Duration `toml:"familiar"`
	// GuardTime is how long a login is guarded the first time; doubled for
	// each repeat, at most MaxBanTime.
	GuardTime Duration `toml:"guard-time"`
	// BanTime is the length of a first ban, doubled for each repeat.
	BanTime Duration `toml:"ban-time"`
	// MaxBanTime is the longest ban, or Forever.
	MaxBanTime Duration `toml:"max-ban-time"`
	// Trickle is the interval over which a guarded login lets one stranger
	// through, and one client of a network that is known for some success.
	// Zero: none.
	Trickle Duration `toml:"trickle"`
	// RepeatAnswer is for how long a guess that just failed is answered by us
	// when it is repeated. Zero: it is always passed on, and scores once.
	RepeatAnswer Duration `toml:"repeat-answer"`
	// Tarpit delays the release of a refused login; zero: not at all. It is at
	// most 10 s.
	Tarpit Duration `toml:"tarpit"`

	// AllowedIP are addresses, networks and host names that are not banned.
	AllowedIP []string `toml:"allowed-ip"`
	// BlockedIP are addresses and networks that are banned in every scope.
	BlockedIP []string `toml:"blocked-ip"`
	// ExemptLocal allows loopback, our own addresses and the servers'.
	ExemptLocal bool `toml:"exempt-local"`
	// AllowGuarded lets allowed addresses pass a guarded login.
	AllowGuarded bool `toml:"allow-guarded"`

	// IPv4Width and IPv6Width are the prefix lengths that count as one
	// address.
	IPv4Width int `toml:"ipv4-width"`
	IPv6Width int `toml:"ipv6-width"`
	// WidenAfter bans an IPv6 /48 in which so many /64 are banned. Zero: never.
	WidenAfter int `toml:"widen-after"`

	// DefaultDomain is added to a login without a domain, so that both
	// spellings are one login. Empty: they are two.
	DefaultDomain string `toml:"default-domain"`
	// PlusAddressing takes user+anything for user in logins.
	PlusAddressing bool `toml:"plus-addressing"`
	// AliasFile is a file of "alias login" lines; an alias is its login.
	// It is read by cmd into Options.Aliases.
	AliasFile string `toml:"alias-file"`
	// HoneypotLogins are logins that nobody has: who tries one is banned.
	HoneypotLogins []string `toml:"honeypot-logins"`
	// TrapRecipients are recipients that nobody has.
	TrapRecipients []string `toml:"trap-recipients"`

	// MaxAddresses, MaxNetworks and MaxLogins bound the counters kept.
	MaxAddresses int `toml:"max-addresses"`
	MaxNetworks  int `toml:"max-networks"`
	MaxLogins    int `toml:"max-logins"`

	// DryRun takes every decision, lists and counts it, and refuses nobody.
	DryRun bool `toml:"dry-run"`

	// Rules are rules of the operator's own, beside the built-in ones; one
	// with a built-in's name replaces it.
	Rules []RuleConfig `toml:"rule"`
}

// A RuleConfig is a [[guard.rule]].
type RuleConfig struct {
	// Name is the rule's name, in lists, logs and metrics.
	Name string `toml:"name"`
	// Key says what adds up: "address", "network", "login" or
	// "login-at-address".
	Key string `toml:"key"`
	// Points are the points of each kind of event; fractions are allowed, down
	// to a thousandth.
	Points map[protocol.Kind]float64 `toml:"points"`
	// Limit is how many points in how long are too many.
	Limit Limit `toml:"limit"`
	// Distinct counts each "login" or "recipient" once; "guess", the default
	// for rules on auth-failure, counts each login and password once; "none"
	// counts every event.
	Distinct string `toml:"distinct"`
	// Consequence is "ban", "guard" (for a login), "refuse" (credentials of
	// strangers), or "delay" (the release of refusals).
	Consequence string `toml:"consequence"`
	// Scope is the scope of a ban: "auth", "mx", "all", a listener's name;
	// empty: that of the listener where it happened.
	Scope string `toml:"scope"`
	// Time is the first ban's length; zero: ban-time. MaxTime is the longest;
	// zero: max-ban-time. Growth multiplies each repeat; zero: 2.
	Time    Duration `toml:"time"`
	MaxTime Duration `toml:"max-time"`
	Growth  float64  `toml:"growth"`
	// FamiliarExcluded leaves out what comes from a login's familiar places.
	FamiliarExcluded bool `toml:"familiar-excluded"`
	// Share needs a quarter of the recipients to be bad as well.
	Share bool `toml:"share"`
	// DryRun simulates this rule's consequence.
	DryRun bool `toml:"dry-run"`
}

// DefaultConfig gives the configuration that an empty [guard] table means.
func DefaultConfig() Config {
	return Config{
		Authentication:     Limit{10, Duration(time.Hour)},
		AuthenticationSlow: Limit{30, Duration(7 * 24 * time.Hour)},
		Login:              Limit{20, Duration(time.Hour)},
		Spray:              Limit{6, Duration(time.Hour)},
		Network:            Limit{50, Duration(time.Hour)},
		InvalidRcpt:        Limit{35, Duration(24 * time.Hour)},
		Loitering:          Limit{150, Duration(24 * time.Hour)},
		Abuse:              Limit{30, Duration(24 * time.Hour)},
		Familiar:           Duration(30 * 24 * time.Hour),
		GuardTime:          Duration(time.Hour),
		BanTime:            Duration(time.Hour),
		MaxBanTime:         Duration(7 * 24 * time.Hour),
		Trickle:            Duration(trickleEvery),
		RepeatAnswer:       Duration(repeatAnswer),
		ExemptLocal:        true,
		IPv4Width:          32,
		IPv6Width:          64,
		MaxAddresses:       defaultMaxAddresses,
		MaxNetworks:        defaultMaxNetworks,
		MaxLogins:          defaultMaxLogins,
	}
}

// A KeyError is a fault in the configuration, with the key that has it.
type KeyError struct {
	// Key is the key below [guard], such as "ban-time" or "rule[2].limit"
	// (the first rule is rule[0]).
	Key string
	Err error
}

func (e *KeyError) Error() string { return "guard." + e.Key + ": " + e.Err.Error() }
func (e *KeyError) Unwrap() error { return e.Err }

func keyErr(key, format string, args ...any) error {
	return &KeyError{Key: key, Err: fmt.Errorf(format, args...)}
}

// Validate tells what is wrong with the configuration, each fault a KeyError.
func (c *Config) Validate() error {
	var errs []error
	for _, l := range c.limits() {
		if err := l.limit.validate(); err != nil {
			errs = append(errs, &KeyError{l.key, err})
		}
	}
	for _, d := range []struct {
		key      string
		value    Duration
		min, max time.Duration
	}{
		{"familiar", c.Familiar, 0, time.Duration(Forever)},
		{"guard-time", c.GuardTime, time.Second, time.Duration(Forever)},
		{"ban-time", c.BanTime, time.Second, time.Duration(Forever)},
		{"max-ban-time", c.MaxBanTime, time.Second, time.Duration(Forever)},
		{"trickle", c.Trickle, 0, trickleBlocked},
		{"repeat-answer", c.RepeatAnswer, 0, time.Hour},
		{"tarpit", c.Tarpit, 0, 10 * time.Second},
	} {
		if d.value.Std() < d.min || d.value.Std() > d.max {
			errs = append(errs, keyErr(d.key, "%v is out of range, from %v to %v", d.value, Duration(d.min), Duration(d.max)))
		}
	}
	if c.Trickle > 0 && c.Trickle.Std() < time.Second {
		errs = append(errs, keyErr("trickle", "%v is too short; it is 1s or more, or 0 for none", c.Trickle))
	}
	if c.BanTime > c.MaxBanTime {
		errs = append(errs, keyErr("ban-time", "%v is longer than max-ban-time = %v", c.BanTime, c.MaxBanTime))
	}
	for i, s := range c.AllowedIP {
		if _, err := ParsePrefix(s); err != nil && !isHostName(s) {
			errs = append(errs, keyErr("allowed-ip", "entry %d: %q is no address, network or host name", i+1, s))
		}
	}
	for i, s := range c.BlockedIP {
		if _, err := ParsePrefix(s); err != nil {
			errs = append(errs, keyErr("blocked-ip", "entry %d: %w", i+1, err))
		}
	}
	for _, n := range []struct {
		key             string
		value, min, max int
	}{
		{"ipv4-width", c.IPv4Width, 24, 32},
		{"ipv6-width", c.IPv6Width, 48, 128},
		{"widen-after", c.WidenAfter, 0, 65536},
		{"max-addresses", c.MaxAddresses, 100, 100_000_000},
		{"max-networks", c.MaxNetworks, 100, 100_000_000},
		{"max-logins", c.MaxLogins, 100, 100_000_000},
	} {
		if n.value < n.min || n.value > n.max {
			errs = append(errs, keyErr(n.key, "%d is out of range, from %d to %d", n.value, n.min, n.max))
		}
	}
	errs = append(errs, c.validateRules()...)
	return errors.Join(errs...)
}

type keyedLimit struct {
	key   string
	limit Limit
}

func (c *Config) limits() []keyedLimit {
	return []keyedLimit{
		{"authentication", c.Authentication},
		{"authentication-slow", c.AuthenticationSlow},
		{"login", c.Login},
		{"spray", c.Spray},
		{"network", c.Network},
		{"invalid-rcpt", c.InvalidRcpt},
		{"loitering", c.Loitering},
		{"abuse", c.Abuse},
	}
}

// AllowedNames gives the host names among allowed-ip. Who owns the
// configuration resolves them and calls [Guard.SetAllowedNames].
func (c *Config) AllowedNames() []string {
	var names []string
	for _, s := range c.AllowedIP {
		if _, err := ParsePrefix(s); err != nil {
			names = append(names, s)
		}
	}
	return names
}

// ParsePrefix reads an address or a network. A v4-mapped address is IPv4, an
// address is a network of one, and bits behind a network's width are refused
// because they are mostly a slip.
func ParsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is no address or network", s)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no address or network", s)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%q mixes IPv4 and IPv6", s)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits set behind its width; did you mean %v?", s, p.Masked())
	}
	return p, nil
}

// isHostName tells whether s may be a host name. A name's last label is not
// a number, so a mistyped address is not taken for a name.
func isHostName(s string) bool {
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Trim(strings.ToLower(l), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	last := labels[len(labels)-1]
	return len(s) <= 253 && strings.Trim(last, "0123456789") != ""
}

// A StoreConfig is the [store] table of the configuration.
type StoreConfig struct {
	// Kind is "embedded" (a file on this machine), "valkey" (a server that many
	// proxies share, with a copy on this machine) or "memory" (nothing is kept;
	// for tests and trials).
	Kind string `toml:"kind"`
	// Path is the directory of the embedded store, or of the copy.
	Path string `toml:"path"`
	// GuessKey is the file of the key that guesses are hashed with; empty: the
	// file guess.key beside the store. It is made if it does not exist.
	GuessKey string `toml:"guess-key"`

	SharedStoreConfig
}

// DefaultStoreConfig gives what an empty [store] table means.
func DefaultStoreConfig() StoreConfig {
	return StoreConfig{Kind: "embedded", Path: "/var/lib/mailreeve", SharedStoreConfig: defaultSharedStoreConfig()}
}

// Validate tells what is wrong with the configuration.
func (c *StoreConfig) Validate() error {
	switch {
	case c.Kind != "embedded" && c.Kind != "valkey" && c.Kind != "memory":
		return fmt.Errorf("store.kind: %q is none of embedded, valkey, memory", c.Kind)
	case c.Kind != "memory" && c.Path == "":
		return errors.New("store.path: the store needs a directory on this machine")
	case c.Kind == "valkey":
		return c.SharedStoreConfig.validate()
	case len(c.Addresses) > 0:
		return fmt.Errorf("store.addresses: they are for kind = %q, and kind is %q", "valkey", c.Kind)
	}
	return nil
}
