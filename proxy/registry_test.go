package proxy

import (
	"maps"
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
		netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8:0:1::1")}
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
		strangers := map[netip.Addr]int32{}
		in := map[*conn]bool{} // those that have logged in, and who are exempt
		count := func() {
			clear(strangers)
			for _, c := range there {
				if !in[c] {
					strangers[networkKey(c.origin.Addr)]++
				}
			}
		}
		address := rapid.SampledFrom(addresses)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				c := &conn{origin: guard.Origin{Addr: address.Draw(t, "address")}}
				b := bounds{all: 12}
				if in[c] = rapid.Bool().Draw(t, "exempt"); !in[c] {
					b.perAddress, b.perNetwork = 3, 4
				}
				want := ""
				switch {
				case len(there) >= b.all:
					want = "limit"
				case !in[c] && len(from(sourceKey(c.origin.Addr))) >= b.perAddress:
					want = "address-limit"
				case !in[c] && int(strangers[networkKey(c.origin.Addr)]) >= b.perNetwork:
					want = "network-limit"
				default:
					there = append(there, c)
				}
				if got := r.add(c, b); got != want {
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
				c := rapid.SampledFrom(there).Draw(t, "who")
				b := bounds{perNetwork: 1000}
				if in[c] = rapid.Bool().Draw(t, "exempt"); in[c] {
					b.perNetwork = 0
				}
				if got := r.readdress(c, address.Draw(t, "address"), b); got != "" {
					t.Fatalf("readdress: %q", got)
				}
			},
			"log in": func(t *rapid.T) {
				if len(there) == 0 {
					t.Skip("nobody is there")
				}
				c := rapid.SampledFrom(there).Draw(t, "who")
				in[c] = true
				r.loggedIn(c)
			},
			"": func(t *rapid.T) {
				if count(); !maps.Equal(r.strangers, strangers) {
					t.Fatalf("strangers: %v, want %v", r.strangers, strangers)
				}
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
