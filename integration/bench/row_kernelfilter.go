package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// kernelFilterRow is the refused row with mailreeve's kernel filter in force:
// banned clients' SYNs are sent, and nobody answers.
func kernelFilterRow(ctx context.Context, b *bench, r *row) error {
	for _, p := range b.chosen {
		if p.name != nameMailreeve {
			continue
		}
		s, err := b.setup(p, filterPlace, runtime.NumCPU())
		if err != nil {
			return err
		}
		s.kernelFilter = true
		t, err := p.begin(s)
		if err != nil {
			return err
		}
		defer t.stop()
		var faults []error
		for round := range b.rounds {
			if err := b.measure(ctx, r, t, round); err != nil {
				faults = append(faults, fmt.Errorf("round %d: %w", round, err))
			}
		}
		return errors.Join(faults...)
	}
	return nil
}
