package guard

import (
	"net/netip"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// Whatever covers a network, or lies within it, is found, and once; of an address
// nothing else is looked at but what is on logins.
func TestWhatConcernsANetworkIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ss, _ := anIndex()
		list := make(map[sentenceKey]bool)
		for range rapid.IntRange(0, 60).Draw(t, "bans") {
			s := drawBan(t)
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				s.key = key{kind: byLogin, login: "alice"}
			case 1: // as narrow as another configuration's addresses
				s.key.prefix = netip.PrefixFrom(s.key.prefix.Addr(), s.key.prefix.Addr().BitLen())
			case 2:
				ss.drop(s.sentenceKey)
				delete(list, s.sentenceKey)
				continue
			}
			ss.put(s)
			list[s.sentenceKey] = true
		}
		a := drawAddr(t)
		bits := rapid.SampledFrom([]int{1, 8, 16, 24, 31, 32, 48, 64, 127, 128}).Draw(t, "bits")
		p, _ := a.Prefix(min(bits, a.BitLen()))
		narrower := false
		for k := range list {
			narrower = narrower || k.key.login == "" && k.key.prefix.Addr().Is4() == a.Is4() && k.key.prefix.Bits() > p.Bits()
		}

		var lock sync.Mutex
		lock.Lock()
		found := make(map[sentenceKey]bool)
		ss.around(&lock, p, func(s *sentence) {
			if found[s.sentenceKey] || !list[s.sentenceKey] {
				t.Fatalf("%+v is found twice, or is none", s.sentenceKey)
			}
			found[s.sentenceKey] = true
			if !narrower && s.key.login == "" && !covers(s.key.prefix, p) {
				t.Fatalf("%v was looked at for %v", s.key.prefix, p)
			}
		})
		for k := range list {
			concerns := k.key.login != "" || covers(k.key.prefix, p) || covers(p, k.key.prefix)
			if concerns && !found[k] {
				t.Fatalf("%v is not found for %v", k, p)
			}
		}
	})
}

// BenchmarkWhy is an operator's question about one address among a million.
func BenchmarkWhy(b *testing.B) {
	ss, _ := anIndex()
	fill(ss, 1_000_000)
	var lock sync.Mutex
	lock.Lock()
	for i := 0; b.Loop(); i++ {
		ss.around(&lock, ss.roll.widths.address(banAddr(i)), func(*sentence) {})
	}
}
