package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestNamesAreResolvedAgain follows one allowed host name through a move, an
// outage of its nameserver, and a reload that no longer names it.
func TestNamesAreResolvedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			mu sync.Mutex

			answer  []netip.Addr
			failure error
			allowed map[string][]netip.Addr
		)
		r := newResolver(func(names map[string][]netip.Addr) {
			mu.Lock()
			defer mu.Unlock()
			allowed = names
		}, slog.New(slog.DiscardHandler))
		r.lookup = func(context.Context, string) ([]netip.Addr, error) {
			mu.Lock()
			defer mu.Unlock()
			return answer, failure
		}
		nameserver := func(err error, addrs ...netip.Addr) {
			mu.Lock()
			defer mu.Unlock()
			answer, failure = addrs, err
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.run(ctx)
		expect := func(when string, want ...netip.Addr) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(allowed["office.example.test"], want) {
				t.Errorf("%s: %v, want %v", when, allowed, want)
			}
		}
		home, moved := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")

		nameserver(nil, netip.MustParseAddr("::ffff:192.0.2.1"), home)
		r.watch([]string{"office.example.test"})
		expect("at once, v4-mapped as v4", home)

		nameserver(nil, moved)
		time.Sleep(resolveEvery - time.Second) // synctest's clock.
		expect("before the next round", home)
		time.Sleep(time.Second)
		expect("after a move", moved)

		nameserver(errors.New("no nameserver"))
		time.Sleep(2 * resolveEvery)
		expect("while the nameserver is away", moved)

		r.watch(nil)
		expect("no longer configured")
	})
}
