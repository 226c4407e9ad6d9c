package guard

import "net/netip"

// Exempt tells whether connections of that address are not to be bounded in
// number: it is on the allow list or exempt by exempt-local.
func (g *Guard) Exempt(a netip.Addr) bool {
	return g.index.allowed(a.Unmap().WithZone(""), g.clock.milli())
}
