package guard

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mailreeve/protocol"
)

// naiveLookup looks through a list.
type naiveBan struct {
	prefix netip.Prefix
	scope  string
	end    banEnd
}

func TestTheIndexAnswersAsAListDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := widths{32, 64}
		x := newIndex(w)
		list := map[string]naiveBan{}
		drawAddr := func(t *rapid.T) netip.Addr {
			if rapid.Bool().Draw(t, "v4") {
				return netip.AddrFrom4([4]byte{192, 0, rapid.Byte().Draw(t, "b") % 3, rapid.Byte().Draw(t, "c") % 8})
			}
			return netip.AddrFrom16([16]byte{0x20, 0x01, 5: rapid.Byte().Draw(t, "b") % 3, 7: rapid.Byte().Draw(t, "c") % 8, 15: rapid.Byte().Draw(t, "d") % 3})
		}
		drawPrefix := func(t *rapid.T) netip.Prefix {
			a := drawAddr(t)
			if rapid.IntRange(0, 3).Draw(t, "network") > 0 {
				return w.address(a)
			}
			bits := rapid.OneOf(rapid.IntRange(8, a.BitLen()/2), rapid.SampledFrom([]int{24, 48, 56})).Draw(t, "bits")
			bits = min(bits, a.BitLen())
			p, _ := a.Prefix(bits)
			return p
		}
		scopes := []string{"auth", "mx", "all"}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				b := naiveBan{drawPrefix(t), rapid.SampledFrom(scopes).Draw(t, "scope"), 0}
				b.end = newBanEnd(rapid.Int64Range(1, 100).Draw(t, "until"), false)
				x.set(b.prefix, b.scope, b.end)
				list[fmt.Sprint(b.prefix, b.scope)] = b
			},
			"remove": func(t *rapid.T) {
				p, scope := drawPrefix(t), rapid.SampledFrom(scopes).Draw(t, "scope")
				x.remove(p, scope)
				delete(list, fmt.Sprint(p, scope))
			},
			"look up": func(t *rapid.T) {
				a, scope, now := drawAddr(t), rapid.SampledFrom(scopes).Draw(t, "scope"), rapid.Int64Range(0, 100).Draw(t, "now")
				want := false
				for _, b := range list {
					want = want || b.scope == scope && b.prefix.Contains(a) && !b.end.over(now)
				}
				if got := x.lookup(a, now, scope) != 0; got != want {
					t.Fatalf("%v in %s at %d: %v, want %v", a, scope, now, got, want)
				}
			},
		})
	})
}

// Readers see every address that is banned throughout, and none that never
// was, while a writer makes the table grow and shrink under them.
func TestReadersAreNotDisturbedByAWriter(t *testing.T) {
	x := newIndex(widths{32, 64})
	steady := netip.MustParseAddr("203.0.113.1")
	x.set(netip.PrefixFrom(steady, 32), "auth", newBanEnd(forever, false))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if x.lookup(steady, 1, "auth") == 0 {
					t.Error("a banned address was let in")
					return
				}
				if x.lookup(netip.MustParseAddr("198.51.100.1"), 1, "auth") != 0 {
					t.Error("an address that was never banned was refused")
					return
				}
			}
		})
	}
	for range 3 {
		for i := range 5000 {
			x.set(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32), "auth", newBanEnd(forever, false))
		}
		for i := range 5000 {
			x.remove(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32), "auth")
		}
	}
	close(stop)
	wg.Wait()
	s := x.scope("auth")
	if s.table.live != 1 || len(s.table.now.Load().slot) > 1024 {
		t.Errorf("%d addresses in %d slots after all were removed but one", s.table.live, len(s.table.now.Load().slot))
	}
}

// banAddr gives the i-th of a spread of addresses: IPv4 and IPv6 mixed.
func banAddr(i int) netip.Addr {
	r := uint64(i) * 0x9e3779b97f4a7c15
	if i%2 == 0 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(r>>32))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], 0x2001<<48|r>>16)
	b[15] = 1
	return netip.AddrFrom16(b)
}

// fill bans n: nine addresses to one network.
func fill(x *index, n int) {
	w := x.widths.Load()
	for i := range n {
		a := banAddr(i)
		if i%10 == 9 {
			bits := 24
			if !a.Is4() {
				bits = 56
			}
			p, _ := a.Prefix(bits)
			x.set(p, "auth", newBanEnd(forever, false))
			continue
		}
		x.set(w.address(a), "auth", newBanEnd(forever, false))
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// Run with -cpu 1,2. "hit" asks for banned addresses, "miss" for others.
func BenchmarkAdmit(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		before := heapInUse()
		x := newIndex(widths{32, 64})
		fill(x, n)
		perBan := float64(heapInUse()-before) / float64(n)
		g := &Guard{index: x, clock: newClock(time.Now), stats: newStats()}
		for _, kind := range []string{"miss", "hit"} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				origins := make([]Origin, 1<<12)
				for i := range origins {
					a := banAddr(rand.IntN(n))
					if kind == "miss" {
						a = banAddr(n + rand.IntN(1<<30))
					}
					origins[i] = Origin{Addr: a, Listener: "imaps", Scope: "auth"}
				}
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for i := 0; pb.Next(); i++ {
						admitted = g.Admit(&origins[i&(1<<12-1)])
					}
				})
				b.ReportMetric(perBan, "B/ban")
			})
		}
	}
}

var admitted protocol.Verdict

func TestAdmitAllocatesNothing(t *testing.T) {
	x := newIndex(widths{32, 64})
	fill(x, 1000)
	g := &Guard{index: x, clock: newClock(time.Now), stats: newStats()}
	o := from(banAddr(0).String())
	miss := from("203.0.113.77")
	if n := testing.AllocsPerRun(100, func() { g.Admit(o); g.Admit(miss) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if v := g.Admit(o); v != protocol.Banned {
		t.Errorf("verdict %v", v)
	}
}
