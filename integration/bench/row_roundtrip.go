package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// roundTripRow measures what a product adds to the time of a small command and
// its reply over TLS: its median less that of going directly, in the same
// round.
func roundTripRow(ctx context.Context, b *bench, r *row) error {
	added := metric{name: "added p50", unit: "µs", reach: "≤ 27", ofProxy: true}
	cpu := cpuPerOp("")
	if err := b.startTargets(runtime.NumCPU()); err != nil {
		return err
	}
	var faults []error
	for round := range b.rounds {
		direct := target{product: product{name: nameDirect}, setup: setup{backend: backendAt(dummyBase)}}
		base, _, err := b.roundTrip(ctx, &direct)
		if err != nil {
			return err
		}
		for _, t := range b.running {
			if t.proc == nil || !t.carries(imaps) {
				continue
			}
			median, s, err := b.roundTrip(ctx, t)
			if err != nil {
				faults = append(faults, fmt.Errorf("%s, round %d: %w", t.name, round, err))
				continue
			}
			more := float64((median - base).Nanoseconds()) / 1000
			err = errors.Join(
				b.add(r, added, t.name, round, more, s.Steal),
				b.add(r, cpu, t.name, round, cpu.of(s), s.Steal),
			)
			if err != nil {
				return err
			}
		}
	}
	return errors.Join(faults...)
}

func (b *bench) roundTrip(ctx context.Context, t *target) (time.Duration, sample, error) {
	pids, err := t.pids()
	if err != nil {
		return 0, sample{}, err
	}
	trips := roundTrips{secure: clientTLS(certECDSA)}
	s, err := drive(ctx, 1, t.addr(imaps), trips.work, b.window, pids)
	if err != nil {
		return 0, s, err
	}
	return trips.median(), s, nil
}
