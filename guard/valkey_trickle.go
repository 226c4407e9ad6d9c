package guard

import (
	"context"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"
)

// A guarded login's trickle is one for the whole fleet: a hash with the number
// of the interval, from when each ticket can be had, who had one, and which
// networks failed of late.

func (l *fleetLedger) ticket(now time.Time, ask *ticketAsk) bool {
	got := false
	err := l.do(func(ctx context.Context, c valkey.Client) error {
		n, err := l.records.number(ctx, c, []string{l.store.names.trickle(ask.login)}, []string{
			"ticket", itoa(l.fleet(now)), ask.network, digit(ask.known), random(), random(),
			itoa(ask.every.Milliseconds()), itoa(trickleBlocked.Milliseconds()),
		})
		got = n == 1
		return err
	})
	if err != nil {
		return l.local.ticket(now, ask)
	}
	return got
}

func random() string { return strconv.FormatFloat(rand.Float64(), 'f', 6, 64) }

func (l *fleetLedger) ticketFailed(now time.Time, login, network string) {
	l.local.ticketFailed(now, login, network)
	// If the store is away this network may get another ticket there: one more
	// guess in the interval that the outage ends in.
	_ = l.do(func(ctx context.Context, c valkey.Client) error {
		_, err := l.records.number(ctx, c, []string{l.store.names.trickle(login)}, []string{
			"failed", itoa(l.fleet(now)), network, strconv.Itoa(maxTrickleNets), itoa(2 * trickleBlocked.Milliseconds()),
		})
		return err
	})
}

func (l *fleetLedger) pardon(upto int64, which func(key) bool, named string) {
	forgot := l.local.forgetFailed(upto, which)
	if named != "" {
		forgot[named] = nil // all that there are
	}
	for login, nets := range forgot {
		st := &ledgerStep{id: newID(), at: l.link.now(), trickle: login, nets: nets}
		if upto != forever {
			st.at = min(st.at, upto+l.link.ahead.Load())
		}
		err := l.do(func(ctx context.Context, c valkey.Client) error { return l.sendPardon(ctx, c, st) })
		if err != nil {
			l.keep(st)
		} else {
			l.remind(st)
		}
	}
}

func (l *fleetLedger) sendPardon(ctx context.Context, c valkey.Client, st *ledgerStep) error {
	_, err := l.records.number(ctx, c, []string{l.store.names.trickle(st.trickle)},
		append([]string{"pardon", itoa(st.at)}, st.nets...))
	return err
}
