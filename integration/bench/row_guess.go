package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
)

// overshootRow lets 20 connections of one address guess as fast as they can
// against mailreeve's default limit and counts what was answered beyond it.
func overshootRow(ctx context.Context, b *bench, r *row) error {
	const limit = 10 // guard.authentication's default
	over := metric{name: "guesses answered beyond the limit", unit: "", reach: "0"}
	for _, p := range b.chosen {
		if p.name != nameMailreeve {
			continue
		}
		for round := range min(3, b.rounds) {
			answered, err := b.overshoot(ctx, p, round)
			if err != nil {
				return err
			}
			if err := b.add(r, over, p.name, round, float64(max(0, answered-limit)), 0); err != nil {
				return err
			}
			if answered == 0 {
				return fmt.Errorf("no guess reached the server; the row shows nothing")
			}
		}
		b.note("overshoot: for comparison, measured elsewhere with 20 connections and servers that answer " +
			"without delay (not in this run): fail2ban 8–12 (up to 127), CrowdSec 26–44 (up to 445).")
	}
	return nil
}

// overshoot returns how many wrong passwords the server has answered.
func (b *bench) overshoot(ctx context.Context, p product, round int) (int64, error) {
	s, err := b.setup(p, guessPlace+round, runtime.NumCPU())
	if err != nil {
		return 0, err
	}
	t, err := p.begin(s)
	if err != nil {
		return 0, err
	}
	defer t.stop()
	var before, after serverCounts
	if err := b.server.ask("counts", &before); err != nil {
		return 0, err
	}
	var group sync.WaitGroup
	var guesses atomic.Int64
	for range 20 {
		group.Go(func() {
			// The proxy hangs up or refuses: the guesser comes again until
			// nobody answers any more.
			for guesses.Load() < 2000 {
				if !guess(ctx, t.addr(imaps), guesserAddress, &guesses) {
					return
				}
			}
		})
	}
	group.Wait()
	if err := b.server.ask("counts", &after); err != nil {
		return 0, err
	}
	return after.Wrong - before.Wrong, nil
}

// guesserAddress is banned by none of the rows before.
var guesserAddress = net.IPv4(127, 201, 0, 1)

// guess makes three guesses on a connection. It tells whether it got one in.
func guess(ctx context.Context, addr string, from net.IP, count *atomic.Int64) bool {
	c, err := dial(ctx, addr, from, clientTLS(certECDSA, tls.X25519))
	if err != nil {
		return false
	}
	defer c.close()
	if _, err := c.next(); err != nil {
		return false
	}
	for range 3 {
		n := count.Add(1)
		// One login: else the rule about many logins would be the first.
		if err := c.write(fmt.Sprintf("a LOGIN victim %s%04d\r\n", wrongPassword, n)); err != nil {
			return true
		}
		for line := []byte(nil); !bytes.HasPrefix(line, []byte("a ")); {
			if line, err = c.next(); err != nil {
				return true
			}
		}
	}
	return true
}
