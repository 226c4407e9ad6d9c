package proxy

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mailreeve/guard"
)

// Whatever comes and goes in whatever order, the registry knows who is there,
// and from where.
func TestRegistryKnowsWhoIsThere(t *testing.T) {
	addresses := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"),
		netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}
	rapid.Check(t, func(t *rapid.T) {
		r := newRegistry()
		var there []*conn
		from := func(key netip.Addr) (list []*conn) {
			for _, c := range there {
				if sourceKey(c.origin.Addr) == key {
					list = append(list, c)
				}
			}
			return list
		}
		address := rapid.SampledFrom(addresses)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				c := &conn{origin: guard.Origin{Addr: address.Draw(t, "address")}}
				const limit, perAddress = 12, 3
				want := ""
				switch {
				case len(there) >= limit:
					want = "limit"
				case len(from(sourceKey(c.origin.Addr))) >= perAddress:
					want = "address-limit"
				default:
					there = append(there, c)
				}
				if got := r.add(c, limit, perAddress); got != want {
					t.Fatalf("add: %q, want %q", got, want)
				}
			},
			"remove": func(t *rapid.T) {
				if len(there) == 0 {
					t.Skip("nobody is there")
				}
				i := rapid.IntRange(0, len(there)-1).Draw(t, "which")
				r.remove(there[i])
				there = slices.Delete(there, i, i+1)
			},
			"readdress": func(t *rapid.T) {
				if len(there) == 0 {
					t.Skip("nobody is there")
				}
				r.readdress(rapid.SampledFrom(there).Draw(t, "who"), address.Draw(t, "address"), 0)
			},
			"": func(t *rapid.T) {
				if got := r.list(nil); r.count() != len(there) || !sameConns(got, there) {
					t.Fatalf("%d of %d are known", len(got), len(there))
				}
				for _, a := range addresses {
					var got []*conn
					for c := r.from[sourceKey(a)]; c != nil; c = c.kin.next {
						got = append(got, c)
					}
					if !sameConns(got, from(sourceKey(a))) {
						t.Fatalf("from %v: %d are known, want %d", a, len(got), len(from(sourceKey(a))))
					}
				}
			},
		})
	})
}

func sameConns(a, b []*conn) bool {
	if len(a) != len(b) {
		return false
	}
	for _, c := range a {
		if !slices.Contains(b, c) {
			return false
		}
	}
	return true
}
