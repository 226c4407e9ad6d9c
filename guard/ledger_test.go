package guard

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// ledgers are the implementations that must count alike: in memory, and in a
// store, with all keys in one call or as in a Cluster a call for each slot.
func ledgers(t *testing.T) map[string]func() ledger {
	rows := map[string]func() ledger{"memory": func() ledger {
		return newMemoryLedger(tableBounds{1000, 1000, 1000}, func(string) bool { return false })
	}}
	if _, err := storeBinary(); err != nil {
		t.Log("not tried on a shared store: ", err)
		return rows
	}
	c := startServer(t).client(t)
	rows["shared"] = func() ledger { return newTestLedger(c, false) }
	rows["shared, a call for each slot"] = func() ledger { return newTestLedger(c, true) }
	return rows
}

// countedThere fails if not all that a shared ledger was asked was counted by
// the store.
func countedThere(t *rapid.T, l ledger) {
	if f, ok := l.(*fleetLedger); ok && (f.link.client() == nil || f.buffered() != 0 || f.link.timeouts.Load()+f.link.dropped.Load() != 0) {
		t.Fatalf("not all was counted by the store: %d steps unsent, %d calls failed, %d values dropped",
			f.buffered(), f.link.timeouts.Load(), f.link.dropped.Load())
	}
}

func drawClaim(t *rapid.T, reserve bool) claim {
	c := rapid.SampledFrom(testRules).Draw(t, "rule")
	if reserve {
		c = testRules[rapid.IntRange(0, 2).Draw(t, "rule to reserve")]
	}
	c.key = rapid.SampledFrom(testKeys).Draw(t, "key")
	c.value = rapid.Uint32Range(0, 6).Draw(t, "value")
	c.yields = reserve && rapid.IntRange(0, 4).Draw(t, "yields") == 0
	c.points *= milli(rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "severity"))
	if c.share {
		c.hard = rapid.IntRange(0, 5).Draw(t, "hard") == 0
		c.good = !c.hard && rapid.Bool().Draw(t, "good")
		c.value = rapid.Uint32Range(1, 60).Draw(t, "recipient")
		if c.hard {
			c.value = 0
		}
	}
	return c
}

func TestLedgersCountAsANaiveListDoes(t *testing.T) {
	for name, make := range ledgers(t) {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				l := make()
				compareWithNaive(t, l)
				countedThere(t, l)
			})
		})
	}
}

func compareWithNaive(t *rapid.T, l ledger) {
	n := &naive{pending: map[int][]claim{}, tripped: map[window2]bool{}}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	next := 0
	find := func(rule string) (terms, bool) {
		for _, r := range testRules {
			if r.rule == rule {
				return r.terms, true
			}
		}
		return terms{}, false
	}
	t.Repeat(map[string]func(*rapid.T){
		"time passes": func(t *rapid.T) {
			now = now.Add(time.Duration(rapid.Int64Range(0, 40*60*1000).Draw(t, "ms")) * time.Millisecond)
		},
		"an event is about to expire": func(t *rapid.T) {
			if len(n.events) == 0 {
				t.Skip("nothing has happened")
			}
			e := rapid.SampledFrom(n.events).Draw(t, "event")
			terms, _ := find(e.rule)
			at := time.UnixMilli(e.at).Add(terms.period).Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "ms")) * time.Millisecond)
			if at.After(now) {
				now = at
			}
		},
		"reserve": func(t *rapid.T) {
			claims := distinctWindows(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) claim { return drawClaim(t, true) }), 1, 3).Draw(t, "claims"))
			want, wantAt := n.reserve(now.UnixMilli(), claims)
			got, gotAt := l.reserve(now, claims)
			if got != want || got != granted && gotAt != wantAt {
				t.Fatalf("reserve %v: got %v at %d, want %v at %d", claims, got, gotAt, want, wantAt)
			}
			if got == granted {
				n.pending[next] = claims
				next++
			}
		},
		"settle": func(t *rapid.T) {
			if len(n.pending) == 0 {
				t.Skip("nothing is reserved")
			}
			id := rapid.IntRange(0, next-1).Filter(func(i int) bool { return n.pending[i] != nil }).Draw(t, "reservation")
			claims := n.pending[id]
			delete(n.pending, id)
			charge := rapid.Bool().Draw(t, "failure")
			totals := l.settle(now, claims, charge, nil)
			if charge {
				compareTotals(t, totals, n.charge(now.UnixMilli(), claims))
			}
		},
		"charge": func(t *rapid.T) {
			claims := []claim{drawClaim(t, false)}
			compareTotals(t, l.charge(now, claims, nil), n.charge(now.UnixMilli(), claims))
		},
		"note": func(t *rapid.T) {
			c := testRules[3]
			c.key, c.points, c.good = rapid.SampledFrom(testKeys).Draw(t, "key"), 0, true
			c.value = rapid.Uint32Range(0, 60).Draw(t, "recipient")
			l.note(now, c)
			n.note(now.UnixMilli(), &c)
		},
		"clear": func(t *rapid.T) {
			c := drawClaim(t, false)
			upto := int64(forever)
			if rapid.Bool().Draw(t, "up to a moment") {
				upto = now.Add(-time.Duration(rapid.IntRange(0, 180).Draw(t, "minutes")) * time.Minute).UnixMilli()
			}
			l.read(now, c.key, find) // brings the window up to date
			var got milli
			for _, cl := range l.clear(c.key, upto, func(rule string) bool { return rule == c.rule }) {
				got += cl.sum
			}
			if sum := n.clear(now.UnixMilli(), upto, &c); got != sum {
				t.Fatalf("cleared %d of %s %s, want %d", got, c.key, c.rule, sum)
			}
		},
		"": func(t *rapid.T) {
			for _, k := range testKeys {
				sums := map[string]milli{}
				for _, r := range l.read(now, k, find) {
					sums[r.rule] = r.sum
				}
				for _, c := range testRules {
					c.key = k
					if want, _ := n.live(now.UnixMilli(), &c, false); sums[c.rule] != want {
						t.Fatalf("%s at %s has %d, want %d", c.rule, k, sums[c.rule], want)
					}
				}
			}
		},
	})
}

// distinctWindows leaves one claim for each window: the judge never makes two.
func distinctWindows(claims []claim) []claim {
	seen := map[string]bool{}
	var out []claim
	for _, c := range claims {
		if w := fmt.Sprint(c.key, c.rule); !seen[w] {
			seen[w] = true
			out = append(out, c)
		}
	}
	return out
}

func compareTotals(t *rapid.T, got []total, want []bool) {
	if len(got) != len(want) {
		t.Fatalf("%d totals, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].tripped != want[i] {
			t.Fatalf("total %+v, want tripped = %v", got[i], want[i])
		}
	}
}

// Nothing that reserves before it guesses gets more guesses through any span
// than the limit, however the answers are delayed.
func TestNoSpanHasMoreGuessesThanTheLimit(t *testing.T) {
	for name, make := range ledgers(t) {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				l, now := make(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
				c := testRules[0]
				c.key = testKeys[0]
				var failed []time.Time
				flying := 0
				for range rapid.IntRange(10, 200).Draw(t, "steps") {
					now = now.Add(time.Duration(rapid.IntRange(0, 20*60).Draw(t, "s")) * time.Second)
					if rapid.Bool().Draw(t, "guess") {
						if g, _ := l.reserve(now, []claim{c}); g == granted {
							flying++
						}
					} else if flying > 0 {
						flying--
						l.settle(now, []claim{c}, true, nil)
						failed = append(failed, now)
					}
					inSpan := 0
					for _, at := range failed {
						if at.After(now.Add(-c.period)) {
							inSpan++
						}
					}
					if milli(inSpan*1000) > c.limit {
						t.Fatalf("%d failures within %v", inSpan, c.period)
					}
				}
				countedThere(t, l)
			})
		})
	}
}

// Ten million sources take a minute here; a fiftieth of them fills the tables
// as well.
func TestMillionsOfSourcesLeaveMemoryFlat(t *testing.T) {
	bounds := tableBounds{2000, 500, 500}
	l := newMemoryLedger(bounds, func(login string) bool { return login == "owner" })
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	charge := func(k key) {
		c := testRules[0]
		c.key = k
		now = now.Add(time.Millisecond)
		l.charge(now, []claim{c}, nil)
	}
	owner := key{kind: byLogin, login: "owner"}
	quiet := key{kind: byAddress, prefix: netip.MustParsePrefix("198.51.100.1/32")}
	charge(owner)
	charge(quiet)
	source := func(b4, b5, b6, b7 byte) key {
		addr := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, b4, b5, b6, b7, 15: 1})
		return key{kind: byAddress, prefix: widths{32, 64}.address(addr)}
	}
	for i := range 65536 {
		charge(source(0, 0, byte(i>>8), byte(i)))
		charge(key{kind: byLogin, login: fmt.Sprint("user", i)})
	}
	for _, k := range []key{owner, quiet} {
		if l.entries[k] == nil {
			t.Errorf("%s was evicted by a crowd elsewhere", k)
		}
	}
	crowd := l.entries[key{kind: byNetwork, prefix: netip.MustParsePrefix("2001:db8::/48")}]
	if crowd == nil || crowd.points() == 0 {
		t.Error("the points of evicted addresses are not with their network")
	}
	for i := range 100_000 {
		charge(source(byte(i>>16)+1, byte(i>>8), byte(i), 0)) // each another /48's
		charge(key{kind: byNetwork, prefix: network(source(byte(i>>8)+1, byte(i), 0, 0).prefix.Addr())})
	}
	counts, evicted := l.sizes()
	for kind, most := range map[keyKind]int{byAddress: bounds.addresses, byNetwork: bounds.networks, byLogin: bounds.logins} {
		if counts[kind] > most || evicted[kind] == 0 {
			t.Errorf("%v: %d entries, want at most %d; %d evictions", kind, counts[kind], most, evicted[kind])
		}
	}
	if n := counts[0] + counts[1] + counts[2] + counts[3]; len(l.entries) != n || len(l.crowds.byNet) != l.crowds.heap.Len() {
		t.Errorf("tables disagree: %d entries, %d by kind; %d crowds, %d in the heap", len(l.entries), n, len(l.crowds.byNet), l.crowds.heap.Len())
	}
	if l.entries[owner] == nil {
		t.Error("a login that succeeded was evicted before those that never did")
	}
}
