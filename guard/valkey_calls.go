package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"
)

// defaultLease is how long a reservation outlives the last sign of its node.
// After it the guess counts: nobody knows what came of it.
const defaultLease = 2 * time.Minute

// errLate: the step came to the server after its caller had given it up. It
// has changed nothing.
var errLate = errors.New("too late")

// counters are the ledger's steps on the server, without any fallback.
type counters struct {
	names  names
	script script
	// split has every slot's keys in a call of its own, as a Cluster needs.
	split bool
	// lease is how long a reservation outlives the last sign of its node.
	lease time.Duration
	// bad is told how many values made no sense and were dropped.
	bad func(n int64)
}

// A group is the part of a step's claims that one call can take.
type group struct {
	tag    string
	keys   []string
	args   []string // of the claims
	claims []int    // their places in the whole step
}

// groups divides claims for calls, in an order that is the same for all nodes:
// of two attempts that want the last point of two keys, the one that gets the
// first key's gets the second's.
func (s *counters) groups(claims []claim) []group {
	var out []group
	for i := range claims {
		c := &claims[i]
		name := s.names.counter(c.key)
		t := ""
		if s.split {
			t = tag(name)
		}
		at := slices.IndexFunc(out, func(g group) bool { return g.tag == t })
		if at < 0 {
			at = len(out)
			out = append(out, group{tag: t})
		}
		g := &out[at]
		n := slices.Index(g.keys, name)
		if n < 0 {
			n = len(g.keys)
			g.keys = append(g.keys, name)
		}
		g.claims = append(g.claims, i)
		g.args = append(g.args, strconv.Itoa(n+1), c.rule, itoa(int64(c.points)), itoa(int64(c.value)), c.flags(),
			itoa(int64(c.limit)), itoa(c.period.Milliseconds()), strconv.Itoa(c.keep), c.hold)
	}
	slices.SortFunc(out, func(a, b group) int {
		if a.tag < b.tag {
			return -1
		}
		return 1
	})
	return out
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func (c *claim) flags() string {
	f := "-"
	for _, o := range []struct {
		set  bool
		name string
	}{{c.good, "g"}, {c.hard, "h"}, {c.yields, "y"}, {c.share, "s"}} {
		if o.set {
			f += o.name
		}
	}
	return f
}

// reserve takes all claims or none. With several groups it takes one after the
// other and gives back what it has if one is refused. Meanwhile others may
// find a limit full and wait, but no limit is ever overshot, and none is
// reached for good by what is given back.
func (s *counters) reserve(ctx context.Context, c valkey.Client, now int64, deadline int64, claims []claim) (grant, int, error) {
	groups := s.groups(claims)
	for n := range groups {
		g, at, err := s.reserveGroup(ctx, c, now, deadline, &groups[n], false)
		if err == nil && g == granted {
			continue
		}
		for _, taken := range groups[:n] {
			if _, e := s.settleGroup(ctx, c, &ledgerStep{at: now, now: now, release: true}, &taken); e != nil && err == nil {
				err = e
			}
		}
		if err != nil {
			return g, at, err
		}
		// A claim that comes before the one in the way may be in the way too.
		for i := n + 1; i < len(groups); i++ {
			if groups[i].claims[0] < at {
				if other, first, err := s.reserveGroup(ctx, c, now, deadline, &groups[i], true); err != nil {
					return g, at, err
				} else if other != granted && first < at {
					g, at = other, first
				}
			}
		}
		return g, at, nil
	}
	return granted, 0, nil
}

func (s *counters) reserveGroup(ctx context.Context, c valkey.Client, now, deadline int64, g *group, dry bool) (grant, int, error) {
	args := append([]string{"reserve", itoa(now), itoa(deadline), itoa(s.lease.Milliseconds()), digit(dry)}, g.args...)
	n, err := s.ints(ctx, c, g.keys, args)
	if err != nil {
		return 0, 0, err
	}
	if len(n) != 3 || n[0] < 0 || n[0] > 3 || n[1] < 0 || n[1] >= int64(len(g.claims)) {
		return 0, 0, errReply
	}
	s.bad(n[2])
	if n[0] == 3 {
		return 0, 0, errLate
	}
	return grant(n[0]), g.claims[n[1]], nil
}

func digit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// ints runs the script for an answer of integers.
func (s *counters) ints(ctx context.Context, c valkey.Client, keys, args []string) ([]int64, error) {
	reply, err := s.script.run(ctx, c, keys, args)
	if err != nil {
		return nil, err
	}
	out := make([]int64, len(reply))
	for i := range reply {
		if out[i], err = reply[i].AsInt64(); err != nil {
			return nil, errReply
		}
	}
	return out, nil
}

// A ledgerStep is a settlement or a charge, the clearing of a key, or the
// pardon of a guarded login's networks, as it is sent or kept to be sent later.
type ledgerStep struct {
	// id names the step: sent twice it counts once.
	id string
	// at is when it happened, and now is the time, both the fleet's.
	at, now int64
	claims  []claim
	release bool
	charge  bool
	ev      *Event

	// clear, unless nil, are the rules to be cleared at the key, of what is not
	// younger than the step, and closed is for how long the windows are closed.
	clear  []string
	key    key
	closed time.Duration

	// trickle, unless empty, is a guarded login whose networks are pardoned that
	// failed no later than the step: nets, or all if there are none.
	trickle string
	nets    []string
}

// settle ends reservations and charges claims.
func (s *counters) settle(ctx context.Context, c valkey.Client, st *ledgerStep) ([]total, error) {
	totals := make([]total, len(st.claims))
	for _, g := range s.groups(st.claims) {
		got, err := s.settleGroup(ctx, c, st, &g)
		if err != nil {
			return nil, err
		}
		for i := range got {
			totals[g.claims[i]] = got[i]
			cl := &st.claims[g.claims[i]]
			t := &totals[g.claims[i]]
			t.key, t.rule, t.limit = cl.key, cl.rule, cl.limit
		}
	}
	if !st.charge {
		return nil, nil
	}
	return totals, nil
}

func (s *counters) settleGroup(ctx context.Context, c valkey.Client, st *ledgerStep, g *group) ([]total, error) {
	evidence := ""
	if st.charge && st.ev != nil {
		b, err := json.Marshal(st.ev)
		if err != nil {
			return nil, fmt.Errorf("encode an event: %w", err)
		}
		evidence = string(b)
	}
	args := append([]string{"settle", itoa(st.now), itoa(st.at), st.id, itoa(s.lease.Milliseconds()), digit(st.release), digit(st.charge),
		evidence, strconv.FormatFloat(shareNeeded, 'g', -1, 64), strconv.Itoa(shareUntil)}, g.args...)
	n, err := s.ints(ctx, c, g.keys, args)
	if err != nil {
		return nil, err
	}
	want := 1
	if st.charge {
		want += 2 * len(g.claims)
	}
	if len(n) != want {
		return nil, errReply
	}
	s.bad(n[0])
	var out []total
	for i := 1; i < len(n); i += 2 {
		out = append(out, total{sum: milli(n[i]), tripped: n[i+1] == 1})
	}
	return out, nil
}

// clear forgets the marks of rules at a key that are not younger than upto.
// For as long as closed nobody gets points there.
func (s *counters) clear(ctx context.Context, c valkey.Client, k key, now, upto int64, closed time.Duration, rules []string) ([]storedView, error) {
	args := append([]string{"clear", itoa(now), itoa(s.lease.Milliseconds()), itoa(upto), itoa(closed.Milliseconds())}, rules...)
	return s.views(ctx, c, k, args)
}

func (s *counters) read(ctx context.Context, c valkey.Client, k key, now int64) ([]storedView, error) {
	return s.views(ctx, c, k, []string{"read", itoa(now), itoa(s.lease.Milliseconds())})
}

// renew tells that this node still waits for the server's answer to attempts
// that hold reservations at a key.
func (s *counters) renew(ctx context.Context, c valkey.Client, k key, holds []string) error {
	_, err := s.ints(ctx, c, []string{s.names.counter(k)}, append([]string{"renew", itoa(s.lease.Milliseconds())}, holds...))
	return err
}
