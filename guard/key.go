package guard

import (
	"net/netip"
	"strings"

	"mailreeve/protocol"
)

// keyKind says what a key names.
type keyKind uint8

const (
	byAddress keyKind = iota // an address, at the configured width
	byNetwork                // a /24 or /48
	byLogin                  // a canonical login
	byPair                   // a login at an address or network
)

// String gives the kind's name as in [RuleConfig.Key].
func (k keyKind) String() string { return keyNames[k] }

// A key is what points add up against.
type key struct {
	kind   keyKind
	prefix netip.Prefix
	login  string
}

// String prints the key for operators.
func (k key) String() string {
	switch k.kind {
	case byLogin:
		return k.login
	case byPair:
		return k.login + " at " + printPrefix(k.prefix)
	}
	return printPrefix(k.prefix)
}

// printPrefix prints a network of one address as that address.
func printPrefix(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// widths are the prefix lengths that count as one address.
type widths struct{ v4, v6 int }

// address gives what counts as the client's address. A v4-mapped address is
// its IPv4 address.
func (w widths) address(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := w.v6
	if a.Is4() {
		bits = w.v4
	}
	p, _ := a.Prefix(bits) // only an invalid address fails, and stays invalid
	return p
}

// network gives the network that an address counts to: /24 or /48, the
// allocation of one site.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits)
	return p
}

// logins canonicalises logins. It is not changed after it is made.
type logins struct {
	domain  string
	plus    bool
	aliases map[string]string
}

func newLogins(cfg *Config, aliases map[string]string) logins {
	l := logins{domain: strings.ToLower(cfg.DefaultDomain), plus: cfg.PlusAddressing}
	resolved := make(map[string]string, len(aliases))
	for from, to := range aliases {
		resolved[l.canonical(from)] = l.canonical(to)
	}
	l.aliases = resolved
	return l
}

// canonical gives the one spelling of a login: without case, control
// characters and blanks, with a domain, cut at MaxIdentity bytes. The cut
// comes before the key is made, or each guess would get a fresh one.
func (l *logins) canonical(login string) string {
	login = strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f || r == 0xa0 || r == 0xfffd {
			return -1
		}
		return r
	}, strings.ToLower(login))
	if len(login) > protocol.MaxIdentity {
		login = strings.ToValidUTF8(login[:protocol.MaxIdentity], "")
	}
	local, domain, at := strings.Cut(login, "@")
	if l.plus {
		if base, _, found := strings.Cut(local, "+"); found && base != "" {
			local = base
		}
	}
	switch {
	case local == "" && !at:
		return ""
	case at:
		login = local + "@" + strings.TrimSuffix(domain, ".")
	case l.domain != "":
		login = local + "@" + l.domain
	default:
		login = local
	}
	if to, ok := l.aliases[login]; ok {
		return to
	}
	return login
}

// all gives the distinct canonical logins among identities, in order.
func (l *logins) all(identities []string) []string {
	var out []string
	for _, id := range identities {
		name := l.canonical(id)
		if name == "" {
			continue
		}
		known := false
		for _, o := range out {
			known = known || o == name
		}
		if !known {
			out = append(out, name)
		}
	}
	return out
}
