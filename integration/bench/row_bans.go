package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

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
	b.fillStores()
	for _, n := range banSteps {
		if n > b.bans {
			break
		}
		select {
		case err := <-b.filled:
			if err != nil {
				return fmt.Errorf("store %d bans: %w", n, err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		s.store = b.banStore(n)
		if err := b.lookAtBans(r, mailreeve[0], s, n); err != nil {
			return fmt.Errorf("%d bans: %w", n, err)
		}
	}
	return nil
}

func (b *bench) banStore(n int) string { return filepath.Join(b.dir, fmt.Sprintf("bans-%d", n)) }

// fillStores has a helper fill a store for each step, and tells filled after
// each. It takes a minute or two, so the row about idle connections, which
// only waits, begins it.
func (b *bench) fillStores() {
	if b.filled != nil {
		return
	}
	b.filled = make(chan error, len(banSteps))
	var err error
	b.filler, err = startHelper(filepath.Join(b.dir, "bans.log"), "store-bans")
	if err != nil {
		b.filled <- err
		return
	}
	go func() {
		for _, n := range banSteps {
			if n > b.bans {
				break
			}
			b.filled <- b.filler.ask(fmt.Sprintf("store %s %d", b.banStore(n), n), new(int))
		}
	}()
}

// storeBansHelper is the program that fills stores: told "store PATH N".
func storeBansHelper(_ []string, stdin io.Reader, stdout io.Writer) error {
	// Whatever is measured meanwhile goes first.
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 19); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "ready")
	for in := bufio.NewScanner(stdin); in.Scan(); {
		var store string
		var n int
		if _, err := fmt.Sscanf(in.Text(), "store %s %d", &store, &n); err != nil {
			return err
		}
		if err := storeBans(store, n); err != nil {
			return err
		}
		fmt.Fprintln(stdout, n)
	}
	return nil
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

// storeBans makes n bans and closes the store.
func storeBans(store string, n int) error {
	g, err := openGuard(store)
	if err != nil {
		return err
	}
	earnBans(g, n)
	return errors.Join(orderBans(g, n), g.Close())
}

// earnBans has the addresses of the list earn their bans, many at a time, because
// each waits until it is durable.
func earnBans(g *guard.Guard, n int) {
	next := make(chan int)
	var group sync.WaitGroup
	for range 4096 {
		group.Go(func() {
			for n := range next {
				o := guard.Origin{Addr: clientOf(n), Listener: "mx", Scope: "mx", Protocol: "smtp", Upstream: "smtp"}
				g.Report(&o, "", protocol.Event{Kind: protocol.InvalidRcpt, Recipient: trapRecipient, Code: "550"})
			}
		})
	}
	for i := range n {
		if !isNetwork(i) {
			next <- i
		}
	}
	close(next)
	group.Wait()
}

// orderBans has an operator ban the networks of the list.
func orderBans(g *guard.Guard, n int) error {
	var batch []guard.BanRequest
	for i := range n {
		if isNetwork(i) {
			batch = append(batch, guard.BanRequest{Target: bannedPrefix(i).String(), Reason: "a list of networks"})
		}
		if len(batch) == 10_000 || i == n-1 {
			if _, err := g.AddBans(batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return nil
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
	nanoseconds, err := b.admitTime(g, n)
	if err := errors.Join(err, g.Close()); err != nil {
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
