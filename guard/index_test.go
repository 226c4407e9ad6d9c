package guard

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mailreeve/protocol"
)

// aBan makes a ban as the tables hold it.
func aBan(p netip.Prefix, scope string, until int64) *sentence {
	w := widths{32, 64}
	k := key{kind: byNetwork, prefix: p}
	if w.address(p.Addr()) == p {
		k.kind = byAddress
	}
	return &sentence{
		sentenceKey: sentenceKey{banned, k, scope, false}, cause: cause{"authentication", "10/1h"},
		until: until, forget: historyEnd(0, until), repeats: 1, active: true,
	}
}

func anIndex() (*sentences, *index) {
	ss := newSentences(widths{32, 64})
	return &ss, newIndex(ss.roll)
}

func drawAddr(t *rapid.T) netip.Addr {
	if rapid.Bool().Draw(t, "v4") {
		return netip.AddrFrom4([4]byte{192, 0, rapid.Byte().Draw(t, "b") % 3, rapid.Byte().Draw(t, "c") % 8})
	}
	return netip.AddrFrom16([16]byte{0x20, 0x01, 5: rapid.Byte().Draw(t, "b") % 3, 7: rapid.Byte().Draw(t, "c") % 8, 15: rapid.Byte().Draw(t, "d") % 3})
}

// drawBan draws a sentence on an address, or on a network of any width.
func drawBan(t *rapid.T) *sentence {
	a := drawAddr(t)
	p := widths{32, 64}.address(a)
	if rapid.IntRange(0, 3).Draw(t, "network") == 0 {
		bits := rapid.OneOf(rapid.IntRange(8, a.BitLen()/2), rapid.SampledFrom([]int{24, 48, 56})).Draw(t, "bits")
		p, _ = a.Prefix(min(bits, a.BitLen()))
	}
	s := aBan(p, rapid.SampledFrom([]string{"auth", "mx", "all"}).Draw(t, "scope"), rapid.Int64Range(1, 100).Draw(t, "until"))
	s.kind = rapid.SampledFrom([]sentenceKind{banned, banned, banned, refused}).Draw(t, "kind")
	s.soft, s.active, s.simulated = rapid.Bool().Draw(t, "soft"), rapid.Bool().Draw(t, "active"), rapid.IntRange(0, 5).Draw(t, "simulated") == 0
	s.since = rapid.Int64Range(0, s.until).Draw(t, "since")
	s.forget = historyEnd(s.since, s.until)
	s.rule = rapid.SampledFrom([]string{"authentication", "spray"}).Draw(t, "rule")
	return s
}

func TestTheIndexAnswersAsAListDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ss, x := anIndex()
		list := map[sentenceKey]*sentence{}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				s := drawBan(t)
				ss.put(s)
				list[s.sentenceKey] = s
			},
			"drop": func(t *rapid.T) {
				k := drawBan(t).sentenceKey
				ss.drop(k)
				delete(list, k)
			},
			"look up": func(t *rapid.T) {
				a, now := drawAddr(t), rapid.Int64Range(0, 100).Draw(t, "now")
				scopes := rapid.SampledFrom([][]string{{"auth"}, {"auth", "imaps", "all"}, {"mx", "all"}, nil}).Draw(t, "scopes")
				var hard, soft bool
				for _, s := range list {
					if s.kind == banned && s.active && !s.simulated && s.until > now && s.key.prefix.Contains(a) && (scopes == nil || slices.Contains(scopes, s.scope)) {
						hard, soft = hard || !s.soft, soft || s.soft
					}
				}
				got := x.lookup(a, now, scopes...)
				if (got != 0) != (hard || soft) || got != 0 && got.soft() == hard {
					t.Fatalf("%v in %v at %d: %x, want hard %v, soft %v", a, scopes, now, got, hard, soft)
				}
			},
			"": func(t *rapid.T) {
				if ss.len() != len(list) {
					t.Fatalf("%d sentences, want %d", ss.len(), len(list))
				}
				active := map[banLabel]int{}
				for k, want := range list {
					got := ss.get(k)
					if got == nil || *got != *want {
						t.Fatalf("got %+v, want %+v", got, want)
					}
					if want.active {
						active[banLabel{want.kind, want.rule, want.scope, want.simulated}]++
					}
				}
				if got := ss.counts(); fmt.Sprint(got) != fmt.Sprint(active) {
					t.Fatalf("counts %v, want %v", got, active)
				}
			},
		})
	})
}

// What is due is found, and all of it, in whatever order it came and changed.
func TestWhatIsDueIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ss, _ := anIndex()
		list := map[sentenceKey]*sentence{}
		for range rapid.IntRange(0, 50).Draw(t, "bans") {
			s := drawBan(t)
			if rapid.IntRange(0, 5).Draw(t, "login") == 0 {
				s.key = key{kind: byLogin, login: rapid.SampledFrom([]string{"alice", "bob"}).Draw(t, "name")}
			}
			ss.put(s)
			list[s.sentenceKey] = s
		}
		now := int64(0)
		for now < 400 {
			now += rapid.Int64Range(1, 200).Draw(t, "passes")
			for due := ss.next(now); len(due) > 0; due = ss.next(now) {
				for i := range due {
					s := &due[i]
					if list[s.sentenceKey] == nil || s.next() > now {
						t.Fatalf("%+v is not due at %d", s, now)
					}
					if s.active {
						s.active = false
						ss.put(s)
						list[s.sentenceKey].active = false
					} else {
						ss.drop(s.sentenceKey)
						delete(list, s.sentenceKey)
					}
				}
			}
			for _, s := range list {
				if s.next() <= now {
					t.Fatalf("%+v was due at %d", s, now)
				}
			}
		}
	})
}

// Readers see every address and network that is banned throughout, however its
// ban changes, and none that never was, while a writer makes the table grow and
// shrink under them and gives rows to others.
func TestReadersAreNotDisturbedByAWriter(t *testing.T) {
	ss, x := anIndex()
	steady := netip.MustParseAddr("203.0.113.1")
	inNet := netip.MustParseAddr("2001:db8:1:2::3")
	prolong := func(n int64) {
		ss.put(aBan(netip.PrefixFrom(steady, 32), "auth", 1000+n))
		ss.put(aBan(network(inNet), "auth", 1000+n))
	}
	prolong(0)
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
				if x.lookup(steady, 1, "auth") == 0 || x.lookup(inNet, 1, "auth") == 0 {
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
	other := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)
	}
	const n = 20_000
	for range 3 {
		for i := range n {
			ss.put(aBan(other(i), "auth", forever))
			prolong(int64(i))
		}
		for i := range n {
			ss.drop(aBan(other(i), "auth", forever).sentenceKey)
		}
	}
	close(stop)
	wg.Wait()
	if n := ss.len(); n != 2 {
		t.Errorf("%d sentences, want 2", n)
	}
	rows := 0
	for i := range ss.roll.parts {
		if p := ss.roll.parts[i].Load(); p != nil {
			rows += len(p.rows)
		}
	}
	if rows > 100 {
		t.Errorf("%d rows for two sentences, after %d were removed", rows, n)
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
func fill(ss *sentences, n int) {
	for i := range n {
		p := ss.roll.widths.address(banAddr(i))
		if i%10 == 9 {
			bits := 24
			if !p.Addr().Is4() {
				bits = 56
			}
			p, _ = p.Addr().Prefix(bits)
		}
		ss.put(aBan(p, "auth", forever))
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// Run with -cpu 1,2. "hit" asks for banned addresses, "miss" for others. B/ban
// is all that is in memory of a ban.
func BenchmarkAdmit(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		before := heapInUse()
		ss, x := anIndex()
		fill(ss, n)
		perBan := float64(heapInUse()-before) / float64(n)
		g := &Guard{index: x, clock: newClock(time.Now)}
		for _, kind := range []string{"miss", "hit"} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				origins := make([]Origin, 1<<16)
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
					for i := rand.IntN(len(origins)); pb.Next(); i++ {
						if v := g.Admit(&origins[i%len(origins)]); v == protocol.Pass && kind == "hit" {
							b.Error("a banned address is let in")
						}
					}
				})
				b.ReportMetric(perBan, "B/ban")
			})
		}
	}
}

// BenchmarkBan is a ban that comes into force, and goes, among a million.
func BenchmarkBan(b *testing.B) {
	ss, _ := anIndex()
	fill(ss, 1_000_000)
	b.ResetTimer()
	for i := range b.N {
		s := aBan(ss.roll.widths.address(banAddr(1_000_000+2*i)), "auth", forever)
		ss.put(s)
		ss.drop(s.sentenceKey)
	}
}

func TestAdmitAllocatesNothing(t *testing.T) {
	ss, x := anIndex()
	fill(ss, 1000)
	g := &Guard{index: x, clock: newClock(time.Now)}
	o := from(banAddr(0).String())
	miss := from("203.0.113.77")
	if n := testing.AllocsPerRun(100, func() { g.Admit(o); g.Admit(miss) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if v := g.Admit(o); v != protocol.Banned {
		t.Errorf("verdict %v", v)
	}
}
