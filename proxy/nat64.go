package proxy

import "net/netip"

// nat64 is the prefix under which a NAT64 shows IPv4 clients to an IPv6 server
// (RFC 6052 section 2.1).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// judged gives the address that a client is judged by. Behind a NAT64 all of
// IPv4 is within one /64, which counts as one address: one attacker would have
// everybody banned. The server is told the address as it came. No NAT64 shows
// an address that is not global (section 3.1): who comes as 127.0.0.1 shall not
// have that one's privileges.
func judged(a netip.Addr) netip.Addr {
	if !nat64.Contains(a) {
		return a
	}
	b := a.As16()
	v4 := netip.AddrFrom4([4]byte(b[12:]))
	if !v4.IsGlobalUnicast() || v4.IsPrivate() {
		return a
	}
	return v4
}
