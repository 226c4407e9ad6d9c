package guard

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"

	"mailreeve/protocol"
)

// BenchmarkFleet makes the table in docs/fleet.md: make fleet-table.

// benchNode starts a guard on a server.
func benchNode(b *testing.B, srv *server, key string) *Guard {
	b.Helper()
	cfg := DefaultConfig()
	cfg.ExemptLocal = false
	store := StoreConfig{Kind: "valkey", Path: b.TempDir(), GuessKey: key, SharedStoreConfig: defaultSharedStoreConfig()}
	store.Addresses = []string{srv.addr}
	g, err := Open(cfg, Options{Store: store, Log: quiet})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { g.Close() })
	return g
}

func benchKey(b *testing.B) string {
	b.Helper()
	key := filepath.Join(b.TempDir(), "guess.key")
	if err := os.WriteFile(key, newGuessKey(), 0o600); err != nil {
		b.Fatal(err)
	}
	return key
}

// info reads a number from a server's INFO.
func info(b *testing.B, c valkey.Client, name string) float64 {
	b.Helper()
	text, err := redisCLI(b, c, "INFO", "everything").ToString()
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				b.Fatal(err)
			}
			return f
		}
	}
	b.Fatalf("INFO has no %s", name)
	return 0
}

// From the server's answer to the deciding guess at one node to the refusal at
// accept at another.
func BenchmarkFleetPropagation(b *testing.B) {
	srv, key := startServer(b), benchKey(b)
	one, two := benchNode(b, srv, key), benchNode(b, srv, key)
	<-one.fleet.synced
	<-two.fleet.synced
	const bans = 500
	var took []time.Duration
	for i := range bans {
		o := from(fmt.Sprintf("10.%d.%d.1", i/250, i%250))
		for n := range 10 {
			// Without a secret to compare each guess counts.
			guess := &protocol.Credential{Mechanism: "CRAM-MD5", Identities: []string{fmt.Sprint("user", i, n/5)}}
			a, _ := one.Attempt(context.Background(), o, guess)
			if a == nil {
				b.Fatal("a guess was refused early")
			}
			start := time.Now()
			if n < 9 {
				one.Settle(a, protocol.Failure, "535 5.7.8")
				continue
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				one.Settle(a, protocol.Failure, "535 5.7.8")
			}()
			for two.Admit(o) == protocol.Pass {
				if time.Since(start) > 10*time.Second {
					b.Fatal("a ban did not arrive")
				}
				time.Sleep(20 * time.Microsecond) // measuring, not waiting for a state of the test
			}
			took = append(took, time.Since(start))
			<-done
		}
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
	b.ReportMetric(ms(took[len(took)*99/100]), "p99-ms")
	b.ReportMetric(ms(took[len(took)-1]), "max-ms")
	b.ReportMetric(0, "ns/op")
}

// realClaims are what an attempt of a stranger reserves by default.
func realClaims(i int) []claim {
	addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	a := key{kind: byAddress, prefix: netip.PrefixFrom(addr, 32)}
	hour := terms{limit: 10000, period: time.Hour, keep: maxMarks}
	week := terms{limit: 30000, period: 7 * 24 * time.Hour, keep: maxMarks}
	v := uint32(i + 1)
	return []claim{
		{key: a, rule: "authentication", points: 1000, value: v, terms: hour},
		{key: a, rule: "authentication-slow", points: 1000, value: v, terms: week},
		{key: key{kind: byLogin, login: fmt.Sprintf("user%d@example.test", i/256%1000)}, rule: "login", points: 1000, value: v, terms: hour},
		{key: a, rule: "spray", points: 1000, value: v, terms: hour},
		{key: key{kind: byNetwork, prefix: network(addr)}, rule: "network", points: 1000, value: v, terms: terms{limit: 50000, period: time.Hour, keep: maxMarks}},
	}
}

// A reservation and its refund, the way of every login that succeeds, by 64
// callers; and what it costs the store's one core.
func BenchmarkFleetReservations(b *testing.B) {
	srv := startServer(b)
	c := srv.client(b)
	l := newTestLedger(c, false)
	before := info(b, c, "used_cpu_user_main_thread") + info(b, c, "used_cpu_sys_main_thread")
	start := time.Now()
	var n atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for time.Since(start) < 3*time.Second {
				claims := realClaims(int(n.Add(1)) * 256) // each of a network of its own
				if g, _ := l.reserve(time.Now(), claims); g == granted {
					l.settle(time.Now(), claims, false, nil)
				}
			}
		})
	}
	wg.Wait()
	cpu := info(b, c, "used_cpu_user_main_thread") + info(b, c, "used_cpu_sys_main_thread") - before
	b.ReportMetric(float64(n.Load())/time.Since(start).Seconds(), "attempts/s")
	b.ReportMetric(float64(n.Load())/cpu, "attempts/store-core-s")
	b.ReportMetric(float64(l.link.timeouts.Load()), "failed")
	b.ReportMetric(0, "ns/op")
}

// What a tracked address costs in the store: one failure with its evidence.
func BenchmarkFleetTrackedAddress(b *testing.B) {
	srv := startServer(b)
	c := srv.client(b)
	l := newTestLedger(c, false)
	before := info(b, c, "used_memory")
	const addresses = 50_000
	var n atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for {
				i := int(n.Add(1))
				if i > addresses {
					return
				}
				o := from("192.0.2.1")
				claims := realClaims(i * 256)[:2] // an address and its two windows
				ev := o.event(time.Now(), protocol.AuthFailure)
				ev.Login, ev.Code, ev.Outcome = "user@example.test", "535 5.7.8", "failure"
				l.charge(time.Now(), claims, ev)
			}
		})
	}
	wg.Wait()
	b.ReportMetric((info(b, c, "used_memory")-before)/addresses, "B/address")
	b.ReportMetric(0, "ns/op")
}

// What a ban costs in the store, and how long a node that starts takes to
// have a million of them; FLEET_BANS is another number.
func BenchmarkFleetMillionBans(b *testing.B) {
	bans := 1_000_000
	if text := os.Getenv("FLEET_BANS"); text != "" {
		bans, _ = strconv.Atoi(text)
	}
	srv, guessKey := startServer(b), benchKey(b)
	c := srv.client(b)
	first := benchNode(b, srv, guessKey)
	<-first.fleet.synced
	before := info(b, c, "used_memory")
	now := time.Now().UnixMilli()
	for i := 0; i < bans; {
		var records []record
		for ; len(records) < 5000 && i < bans; i++ {
			s := &sentence{cause: cause{"authentication", "10/1h"}, since: now, score: 10000, active: true}
			s.sentenceKey = sentenceKey{kind: banned, scope: "auth", key: key4(i)}
			s.repeats = 1
			s.until, s.forget = now+7200_000, now+4*7200_000
			records = append(records, stamped(s.record(), stamp{at: now, node: 1}))
		}
		if err := first.fleet.share.send(context.Background(), c, records, false); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric((info(b, c, "used_memory")-before)/float64(bans), "B/ban")
	start := time.Now()
	g := benchNode(b, srv, guessKey)
	eventually(b, 5*time.Minute, "the last ban is refused", func() bool { return g.fleet.follower.applied.Load() >= uint64(bans) })
	b.ReportMetric(time.Since(start).Seconds(), "load-s")
	<-g.fleet.synced
	b.ReportMetric(time.Since(start).Seconds(), "history-s")
	b.ReportMetric(0, "ns/op")
}

func key4(i int) key {
	return key{kind: byAddress, prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 32)}
}
