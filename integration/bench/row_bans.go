package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// banSteps are how many bans are loaded when the guard is looked at.
var banSteps = []int{10_000, 100_000, 1_000_000}

// trapRecipient is a recipient that bans who names it.
const trapRecipient = "trap@example.test"

// bansRow measures what bans cost: the guard alone, in this process, with a
// store full of them, and how long mailreeve takes to start with that store.
func bansRow(ctx context.Context, b *bench, r *row) error {
	mailreeve, err := pick(b.chosen, func(p product) string { return p.name }, nameMailreeve)
	if err != nil {
		return nil // It was not chosen.
	}
	s, err := b.setup(mailreeve[0], bansPlace, runtime.NumCPU())
	if err != nil {
		return err
	}
	s.store = filepath.Join(b.dir, "bans")
	stored := 0
	for _, n := range banSteps {
		if n > b.bans {
			break
		}
		if err := storeBans(ctx, s.store, stored, n); err != nil {
			return fmt.Errorf("store %d bans: %w", n, err)
		}
		stored = n
		if err := b.lookAtBans(r, mailreeve[0], s, n); err != nil {
			return fmt.Errorf("%d bans: %w", n, err)
		}
	}
	return nil
}

// banned is the n-th banned address: all over the IPv4 space, none twice
// (2654435761 is odd, so this permutes).
func bannedAddress(n int) netip.Addr {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], uint32(n)*2654435761)
	return netip.AddrFrom4(a)
}

func openGuard(store string) (*guard.Guard, error) {
	cfg := guard.DefaultConfig()
	cfg.TrapRecipients = []string{trapRecipient}
	cfg.MaxAddresses = 1000 // Counters are not what is measured.
	cfg.MaxNetworks = 1000
	return guard.Open(cfg, guard.Options{
		Store: guard.StoreConfig{Kind: "embedded", Path: store},
		Log:   slog.New(slog.DiscardHandler),
	})
}

// storeBans bans the addresses from one number to another and closes the
// store. Many at a time, because each waits until it is durable.
func storeBans(ctx context.Context, store string, from, to int) error {
	g, err := openGuard(store)
	if err != nil {
		return err
	}
	next := make(chan int)
	var group sync.WaitGroup
	for range 4096 {
		group.Go(func() {
			for n := range next {
				o := guard.Origin{Addr: bannedAddress(n), Listener: "mx", Scope: "mx", Protocol: "smtp", Upstream: "smtp"}
				g.Report(&o, "", protocol.Event{Kind: protocol.InvalidRcpt, Recipient: trapRecipient, Code: "550"})
			}
		})
	}
	for n := from; n < to && ctx.Err() == nil; n++ {
		next <- n
	}
	close(next)
	group.Wait()
	return errors.Join(ctx.Err(), g.Close())
}

// lookAtBans loads the store and takes the figures.
func (b *bench) lookAtBans(r *row, p product, s setup, n int) error {
	before := heap()
	g, err := openGuard(s.store)
	if err != nil {
		return err
	}
	status := g.Status()
	if status.Bans < n*99/100 { // Some addresses are loopback's, and exempt.
		return errors.Join(fmt.Errorf("only %d are in force", status.Bans), g.Close())
	}
	bytes := float64(heap()-before) / float64(status.Bans)
	nanoseconds := admitTime(g, n)
	if err := g.Close(); err != nil {
		return err
	}
	begin := time.Now()
	t, err := p.begin(s)
	if err != nil {
		return err
	}
	started := time.Since(begin).Seconds()
	t.stop()
	figure := func(name, unit, reach string) metric {
		return metric{name: fmt.Sprintf("%s at %d", name, n), unit: unit, reach: reach, ofProxy: true}
	}
	return errors.Join(
		b.add(r, figure("Admit", "ns", "≤ 150"), p.name, 0, nanoseconds, 0),
		b.add(r, figure("memory", "B each", "≤ 64"), p.name, 0, bytes, 0),
		b.add(r, figure("start-up", "s", "≤ 2"), p.name, 0, started, 0),
	)
}

// heap is what is in use once all garbage is gone.
func heap() int64 {
	runtime.GC()
	runtime.GC() // What finalizers and pools held goes with the second.
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// admitTime is how long a look takes, on all cores at once. Every other client
// is banned.
func admitTime(g *guard.Guard, n int) float64 {
	const looks = 1 << 20
	var group sync.WaitGroup
	begin := time.Now()
	for id := range runtime.NumCPU() {
		group.Go(func() {
			o := guard.Origin{Listener: "mx", Scope: "mx", Protocol: "smtp", Upstream: "smtp"}
			for i := range looks {
				// A stride that leaps about, over twice as many as are banned.
				o.Addr = bannedAddress((i*7919 + id) % (2 * n))
				g.Admit(&o)
			}
		})
	}
	group.Wait()
	return float64(time.Since(begin).Nanoseconds()) / looks
}
