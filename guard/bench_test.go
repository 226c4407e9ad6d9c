package guard

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"mailreeve/protocol"
)

// BenchmarkAttempt is one credential that fails, from asking to settling.
func BenchmarkAttempt(b *testing.B) {
	cfg := DefaultConfig()
	cfg.Login, cfg.Network, cfg.Spray = Limit{4096, Duration(time.Hour)}, Limit{4096, Duration(time.Hour)}, Limit{}
	g, err := Open(cfg, Options{Store: StoreConfig{Kind: "memory"}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	b.ReportAllocs()
	o := from("192.0.2.1")
	for i := range b.N {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 0x0b000000+uint32(i%200_000)*16)
		o.Addr = netip.AddrFrom4(a)
		attempt, _ := g.Attempt(context.Background(), o, plain(fmt.Sprint("user", i%5000), fmt.Sprint(i)))
		if attempt != nil {
			g.Settle(attempt, protocol.Failure, "535 5.7.8")
		}
	}
}

// BenchmarkGoodRcpt is what every recipient of every accepted message costs: of
// one who writes to the same people, and of one who always finds others.
func BenchmarkGoodRcpt(b *testing.B) {
	for name, people := range map[string]int{"same": 100, "others": 100_000} {
		b.Run(name, func(b *testing.B) {
			g, err := Open(DefaultConfig(), Options{Store: StoreConfig{Kind: "memory"}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
			if err != nil {
				b.Fatal(err)
			}
			defer g.Close()
			defer g.Follow(func(*News) {})() // as the program does
			events := make([]protocol.Event, people)
			for i := range events {
				events[i] = protocol.Event{Kind: protocol.GoodRcpt, Recipient: fmt.Sprintf("person%d@example.test", i), Code: "250 2.0.0"}
			}
			b.ReportAllocs()
			o := from("192.0.2.1")
			for i := 0; b.Loop(); i++ {
				if d := g.Report(o, "", events[i%people]); d.Verdict != protocol.Pass {
					b.Fatal(d)
				}
			}
		})
	}
}

// BenchmarkTrackedAddress shows what an address with one failure costs, with
// its network and its evidence.
func BenchmarkTrackedAddress(b *testing.B) {
	const n = 50_000
	for range b.N {
		before := heapInUse()
		g, err := Open(DefaultConfig(), Options{Store: StoreConfig{Kind: "memory"}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			b.Fatal(err)
		}
		o := from("192.0.2.1")
		for i := range n {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], 0x0b000000+uint32(i)*64)
			o.Addr = netip.AddrFrom4(a)
			c := &protocol.Credential{Mechanism: "GSSAPI"}
			if attempt, _ := g.Attempt(context.Background(), o, c); attempt != nil {
				g.Settle(attempt, protocol.Failure, "535 5.7.8")
			}
		}
		b.ReportMetric(float64(heapInUse()-before)/n, "B/address")
		g.Close()
	}
}

// BenchmarkLoad shows how long a start takes with a million bans on disk.
func BenchmarkLoad(b *testing.B) {
	const n = 1_000_000
	dir := b.TempDir()
	store, _, err := openBolt(dir, newLoader(&Guard{clock: newClock(nil)}))
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now().UnixMilli()
	var batch []record
	w := widths{32, 64}
	for i := range n {
		s := &sentence{
			sentenceKey: sentenceKey{banned, key{kind: byAddress, prefix: w.address(banAddr(i))}, "auth", false},
			cause:       cause{rule: "authentication", limit: "10/1h"}, since: now, until: forever, forget: forever, repeats: 1, active: true,
		}
		batch = append(batch, s.record())
		if len(batch) == 50_000 {
			if err := store.write(batch); err != nil {
				b.Fatal(err)
			}
			batch = batch[:0]
		}
	}
	if err := store.close(); err != nil {
		b.Fatal(err)
	}
	cfg := StoreConfig{Kind: "embedded", Path: dir}
	b.ResetTimer()
	for range b.N {
		before := heapInUse()
		g, err := Open(DefaultConfig(), Options{Store: cfg, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		b.ReportMetric(float64(heapInUse()-before)/n, "B/ban")
		if got := g.Status().Bans; got < n*99/100 {
			b.Fatalf("%d bans", got)
		}
		g.Close()
		b.StartTimer()
	}
}
