package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestNamesAreResolvedAgain follows one allowed host name through a move, an
// outage of its nameserver, and a reload that no longer names it.
func TestNamesAreResolvedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			answer  []netip.Addr
			failure error
			allowed map[string][]netip.Addr
		)
		r := newResolver(func(names map[string][]netip.Addr) { allowed = names }, slog.New(slog.DiscardHandler))
		r.lookup = func(context.Context, string) ([]netip.Addr, error) { return answer, failure }
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.run(ctx)
		expect := func(when string, want ...netip.Addr) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(allowed["office.example.test"], want) {
				t.Errorf("%s: %v, want %v", when, allowed, want)
			}
		}
		home, moved := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")

		answer = []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1"), home}
		r.watch([]string{"office.example.test"})
		expect("at once, v4-mapped as v4", home)

		answer = []netip.Addr{moved}
		time.Sleep(resolveEvery - time.Second) // synctest's clock.
		expect("before the next round", home)
		time.Sleep(time.Second)
		expect("after a move", moved)

		failure = errors.New("no nameserver")
		time.Sleep(2 * resolveEvery)
		expect("while the nameserver is away", moved)

		r.watch(nil)
		expect("no longer configured")
	})
}
