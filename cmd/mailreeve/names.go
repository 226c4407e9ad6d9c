package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"
)

// How often the host names of allowed-ip are resolved, and for how long one
// lookup may take.
const (
	resolveEvery = 5 * time.Minute
	lookupWithin = 10 * time.Second
)

// A resolver keeps the addresses of the host names in allowed-ip up to date.
// A name that does not resolve keeps the addresses it had: a nameserver's
// outage must not lock out who is allowed.
type resolver struct {
	lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	// set is told the addresses of all names after each round.
	set func(map[string][]netip.Addr)
	log *slog.Logger

	names chan []string
}

func newResolver(set func(map[string][]netip.Addr), log *slog.Logger) *resolver {
	lookup := func(ctx context.Context, name string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	}
	return &resolver{lookup, set, log, make(chan []string, 1)}
}

// watch has other names resolved, at once and from now on.
func (r *resolver) watch(names []string) {
	select {
	case <-r.names:
	default:
	}
	r.names <- names
}

// run resolves until ctx ends.
func (r *resolver) run(ctx context.Context) {
	var names []string
	known := map[string][]netip.Addr{}
	failing := map[string]bool{}
	tick := time.NewTicker(resolveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case names = <-r.names:
		case <-tick.C:
		}
		current := map[string][]netip.Addr{}
		for _, name := range names {
			current[name] = r.resolve(ctx, name, known[name], failing)
		}
		known = current
		if ctx.Err() == nil {
			r.set(current)
		}
	}
}

// resolve gives a name's addresses, or those it had. It logs when a name
// begins and ceases to fail, and when its addresses change.
func (r *resolver) resolve(ctx context.Context, name string, had []netip.Addr, failing map[string]bool) []netip.Addr {
	ctx, cancel := context.WithTimeout(ctx, lookupWithin)
	defer cancel()
	found, err := r.lookup(ctx, name)
	if err != nil {
		if !failing[name] {
			r.log.Warn("allowed-ip: a name does not resolve; its last addresses stay allowed",
				"name", name, "addresses", had, "error", err)
		}
		failing[name] = true
		return had
	}
	addrs := make([]netip.Addr, 0, len(found))
	for _, a := range found {
		addrs = append(addrs, a.Unmap().WithZone(""))
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	if failing[name] || !slices.Equal(addrs, had) {
		r.log.Info("allowed-ip: name resolved", "name", name, "addresses", addrs)
	}
	delete(failing, name)
	return addrs
}
