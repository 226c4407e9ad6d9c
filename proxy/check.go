package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// An Element is a place in the configuration that an error is about: a table
// ("listener"), its position among its like, and a key in it.
type Element struct {
	Table string
	Index int
	Key   string
}

// A ConfigError is a fault in a configuration, with the place it is at.
type ConfigError struct {
	Element
	Msg string
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("[[%s]] number %d: %s: %s", e.Table, e.Index+1, e.Key, e.Msg)
}

// Normalize fills in what was left out and checks the rest, without opening a
// file or a socket. Errors are *ConfigError and say what would be right.
func (c *Config) Normalize() error {
	for i := range c.Certificates {
		if err := c.Certificates[i].check(i); err != nil {
			return err
		}
	}
	names := map[string]bool{}
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		if err := u.normalize(i); err != nil {
			return err
		}
		if names[u.Name] {
			return upstreamError(i, "name", "%q is used twice; every upstream needs a name of its own", u.Name)
		}
		names[u.Name] = true
	}
	listeners, addresses := map[string]bool{}, map[string]bool{}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if err := l.normalize(i, names, len(c.Certificates) > 0); err != nil {
			return err
		}
		if listeners[l.Name] {
			return listenerError(i, "name", "%q is used twice; every listener needs a name of its own", l.Name)
		}
		if addresses[l.Address] {
			return listenerError(i, "address", "%q is used twice", l.Address)
		}
		listeners[l.Name], addresses[l.Address] = true, true
	}
	if err := c.checkXClient(); err != nil {
		return err
	}
	for i := range c.Rows {
		if _, err := protocol.CompileRows(c.Rows[i : i+1]); err != nil {
			return &ConfigError{Element{"reply", i, "means"}, err.Error()}
		}
	}
	if err := c.Enforce.normalize(); err != nil {
		return err
	}
	return c.checkBounds()
}

// checkXClient: the command is SMTP's.
func (c *Config) checkXClient() error {
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		for _, l := range c.Listeners {
			if u.ProxyProtocol == ProxyXClient && l.Upstream == u.Name && !speaksSMTP(l.Protocol) {
				return upstreamError(i, "proxy-protocol", "\"xclient\" is for smtp and submission, and listener %q is %s; "+
					"use \"v2\" there, with an upstream of its own", l.Name, l.Protocol)
			}
		}
	}
	return nil
}

func speaksSMTP(name string) bool { return name == "smtp" || name == "submission" }

func (c *Config) checkBounds() error {
	for _, d := range []struct {
		key string
		d   guard.Duration
	}{
		{"proxy-header", c.Timeouts.ProxyHeader}, {"handshake", c.Timeouts.Handshake},
		{"first-command", c.Timeouts.FirstCommand}, {"login", c.Timeouts.Login},
		{"mail", c.Timeouts.Mail}, {"command", c.Timeouts.Command},
		{"imap-idle", c.Timeouts.IMAPIdle}, {"pop3-idle", c.Timeouts.POP3Idle},
		{"dial", c.Timeouts.Dial}, {"greeting", c.Timeouts.Greeting},
	} {
		if d.d <= 0 {
			return &ConfigError{Element{"timeouts", 0, d.key}, "must be longer than 0s"}
		}
	}
	for _, n := range []struct {
		key string
		n   int
	}{
		{"connections", c.Limits.Connections},
		{"connections-per-address", c.Limits.ConnectionsPerAddress},
		{"connections-per-network", c.Limits.ConnectionsPerNetwork},
		{"handshakes", c.Limits.Handshakes},
	} {
		if n.n < 1 {
			return &ConfigError{Element{"limits", 0, n.key}, "must be at least 1"}
		}
	}
	return c.checkPace()
}

// checkPace looks at what slows clients down.
func (c *Config) checkPace() error {
	if c.Limits.MinDataRate < 0 {
		return &ConfigError{Element{"limits", 0, "min-data-rate"}, "must not be negative; 0 is no limit"}
	}
	for i, l := range c.Listeners {
		switch {
		case l.GreetDelay < 0 || l.GreetDelay >= c.Timeouts.FirstCommand:
			return listenerError(i, "greet-delay", "must be shorter than timeouts.first-command, which runs meanwhile")
		case l.GreetDelay > 0 && !protocol.Lookup(l.Protocol).EarlyTalk:
			return listenerError(i, "greet-delay", "is for protocol \"smtp\": people's mail programs may talk early")
		}
	}
	return nil
}

func (c *Certificate) check(i int) error {
	if c.Cert == "" {
		return &ConfigError{Element{"certificate", i, "cert"}, "is missing: name the PEM file with the certificate chain"}
	}
	if c.Key == "" {
		return &ConfigError{Element{"certificate", i, "key"}, "is missing: name the PEM file with the private key"}
	}
	return nil
}

func upstreamError(i int, key, format string, args ...any) error {
	return &ConfigError{Element{"upstream", i, key}, fmt.Sprintf(format, args...)}
}

func listenerError(i int, key, format string, args ...any) error {
	return &ConfigError{Element{"listener", i, key}, fmt.Sprintf(format, args...)}
}

func (u *Upstream) normalize(i int) error {
	if u.Name == "" {
		return upstreamError(i, "name", "is missing")
	}
	if len(u.Addresses) == 0 {
		return upstreamError(i, "addresses", "is missing: list the server's host:port")
	}
	for _, a := range u.Addresses {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			return upstreamError(i, "addresses", "%q is not host:port", a)
		}
	}
	if u.ProxyProtocol == "" {
		u.ProxyProtocol = ProxyV2
	}
	switch u.ProxyProtocol {
	case ProxyV2, ProxyV1, ProxyNone, ProxyXClient:
	default:
		return upstreamError(i, "proxy-protocol", "%q is unknown; use \"v2\", \"v1\", \"xclient\" or \"none\"", u.ProxyProtocol)
	}
	if u.TLS == "" {
		u.TLS = protocol.TLSNone
	}
	if !knownTLS(u.TLS) {
		return upstreamError(i, "tls", "%q is unknown; use \"none\", \"starttls\" or \"implicit\"", u.TLS)
	}
	if u.ProbeInterval == 0 {
		u.ProbeInterval = DefaultProbeInterval
	}
	if u.ProbeInterval < guard.Duration(time.Second) {
		return upstreamError(i, "probe-interval", "must be at least 1s")
	}
	return nil
}

func knownTLS(m protocol.TLSMode) bool {
	return m == protocol.TLSNone || m == protocol.TLSStartTLS || m == protocol.TLSImplicit
}

func (l *Listener) normalize(i int, upstreams map[string]bool, haveCertificate bool) error {
	if l.Name == "" {
		return listenerError(i, "name", "is missing")
	}
	if len(l.Name) > guard.MaxName {
		return listenerError(i, "name", "is longer than %d bytes", guard.MaxName)
	}
	if len(l.Scope) > guard.MaxName {
		return listenerError(i, "scope", "is longer than %d bytes", guard.MaxName)
	}
	if _, port, err := net.SplitHostPort(l.Address); err != nil || port == "" {
		return listenerError(i, "address", "%q is not host:port or :port", l.Address)
	}
	p := protocol.Lookup(l.Protocol)
	if p == nil {
		return listenerError(i, "protocol", "%q is unknown; use one of %s", l.Protocol, protocolNames())
	}
	if !knownTLS(l.TLS) {
		return listenerError(i, "tls", "%q is unknown; use \"none\", \"starttls\" or \"implicit\"", l.TLS)
	}
	if l.TLS != protocol.TLSNone && !haveCertificate {
		return listenerError(i, "tls", "%q needs a [[certificate]]", l.TLS)
	}
	if !upstreams[l.Upstream] {
		return listenerError(i, "upstream", "no [[upstream]] is named %q", l.Upstream)
	}
	if l.Scope == "" {
		l.Scope = p.Scope
	}
	if l.Scope == "all" {
		return listenerError(i, "scope", "\"all\" is not a scope of a listener; it is what a ban for every scope is called")
	}
	if l.OldCiphers == nil {
		// Between mail servers TLS is opportunistic: whose handshake fails
		// comes again without any (RFC 7435 section 3).
		old := l.Protocol == "smtp"
		l.OldCiphers = &old
	}
	if l.Auth == nil {
		auth := l.Protocol != "smtp"
		l.Auth = &auth
	}
	switch l.PlaintextAuth {
	case "":
		l.PlaintextAuth = PlaintextNo
	case PlaintextNo, PlaintextPrivate, PlaintextYes:
	default:
		return listenerError(i, "plaintext-auth", "%q is unknown; use \"no\", \"private\" or \"yes\"", l.PlaintextAuth)
	}
	if _, err := parsePrefixes(l.TrustedProxies); err != nil {
		return listenerError(i, "trusted-proxies", "%v", err)
	}
	return nil
}

func protocolNames() string {
	names := make([]string, len(protocol.All))
	for i, p := range protocol.All {
		names[i] = p.Name
	}
	return strings.Join(names, ", ")
}

// parsePrefixes reads addresses and networks.
func parsePrefixes(list []string) ([]netip.Prefix, error) {
	prefixes := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			a = a.Unmap()
			prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a network", s)
		}
		prefixes = append(prefixes, p.Masked())
	}
	return prefixes, nil
}
