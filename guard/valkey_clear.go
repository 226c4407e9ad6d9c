package guard

import (
	"context"
	"slices"
	"time"

	"github.com/valkey-io/valkey-go"
)

func (l *fleetLedger) clear(k key, upto int64, which func(rule string) bool) []cleared {
	alone := l.local.clear(k, upto, which)
	var rules []string
	for _, r := range l.rules() {
		if which(r) {
			rules = append(rules, r)
		}
	}
	for _, c := range alone {
		if !slices.Contains(rules, c.rule) {
			rules = append(rules, c.rule) // of a rule that is no more
		}
	}
	if len(rules) == 0 {
		return alone
	}
	closed := l.closing(k, rules)
	var views []storedView
	st := &ledgerStep{id: newID(), at: l.link.now(), key: k, clear: rules, closed: closed}
	if upto != forever {
		st.at = min(st.at, upto+l.link.ahead.Load())
		upto = st.at
	}
	err := l.do(func(ctx context.Context, c valkey.Client) (err error) {
		views, err = l.store.clear(ctx, c, k, l.link.now(), min(upto, forever/2), closed, rules)
		return err
	})
	if err != nil {
		l.keep(st)
		return alone
	}
	l.remind(st)
	var out []cleared
	for i := range views {
		v := &views[i]
		if v.good {
			continue
		}
		c := cleared{key: k, rule: v.rule, marks: l.ownTimes(v.marks)}
		for _, m := range v.marks {
			c.sum += m.points
		}
		out = append(out, c)
	}
	return out
}

// closing tells for how long the windows of rules at a key are closed when they
// are cleared: if that is because of a sentence, until all have heard of it.
func (l *fleetLedger) closing(k key, rules []string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	closed := time.Duration(0)
	for _, r := range rules {
		id := windowID{k, r}
		if l.tripped[id] && l.closes != nil && l.closes(r) {
			closed = closedFor
		}
		delete(l.tripped, id)
	}
	return closed
}

// trip remembers the windows that have reached their limits, until they are
// cleared for it.
func (l *fleetLedger) trip(totals []total) {
	for i := range totals {
		if totals[i].tripped {
			l.mu.Lock()
			if len(l.tripped) > maxSent {
				clear(l.tripped)
			}
			l.tripped[windowID{totals[i].key, totals[i].rule}] = true
			l.mu.Unlock()
		}
	}
}
