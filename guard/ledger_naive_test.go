package guard

import (
	"net/netip"
	"slices"
	"time"
)

// A naive ledger keeps everything that ever happened and adds it up anew each
// time.
type naive struct {
	events  []naiveEvent
	pending map[int][]claim
	tripped map[window2]bool
}

type window2 struct {
	key  key
	rule string
}

type naiveEvent struct {
	window2
	at     int64
	points milli
	value  uint32
	hard   bool
	good   bool
}

// live gives what counts in a window: of each distinct value the last event.
func (n *naive) live(now int64, c *claim, good bool) (sum milli, events []naiveEvent) {
	for i, e := range n.events {
		if e.window2 != (window2{c.key, c.rule}) || e.good != good || e.at <= now-c.period.Milliseconds() {
			continue
		}
		last := true
		for _, later := range n.events[i+1:] {
			if e.value != 0 && later.window2 == e.window2 && later.good == good && later.value == e.value {
				last = false
			}
		}
		if last {
			sum += e.points
			events = append(events, e)
		}
	}
	return sum, events
}

func (n *naive) reserve(now int64, claims []claim) (grant, int) {
	for i := range claims {
		c := &claims[i]
		sum, events := n.live(now, c, false)
		if sum >= c.limit {
			if c.yields {
				continue
			}
			return over, i
		}
		counted := false
		settled, most := map[uint32]bool{}, map[uint32]milli{}
		for _, e := range events {
			counted = counted || c.value != 0 && e.value == c.value
			settled[e.value] = true
		}
		for _, held := range n.pending {
			for _, p := range held {
				if p.key != c.key || p.rule != c.rule {
					continue
				}
				counted = counted || c.value != 0 && p.value == c.value
				if p.value == 0 {
					sum += p.points
				} else if !settled[p.value] {
					most[p.value] = max(most[p.value], p.points)
				}
			}
		}
		for _, points := range most {
			sum += points
		}
		if !counted && sum >= c.limit {
			return full, i
		}
	}
	return granted, 0
}

func (n *naive) charge(now int64, claims []claim) (tripped []bool) {
	for i := range claims {
		c := &claims[i]
		w := window2{c.key, c.rule}
		if before, _ := n.live(now, c, false); before < c.limit {
			n.tripped[w] = false
		}
		n.events = append(n.events, naiveEvent{w, now, c.points, c.value, c.hard, c.good})
		sum, events := n.live(now, c, false)
		_, good := n.live(now, c, true)
		var hard milli
		bad := 0
		for _, e := range events {
			if e.hard {
				hard += e.points
			} else {
				bad++
			}
		}
		reached := sum >= c.limit
		if reached && c.share && sum < 5*c.limit && hard < c.limit {
			reached = 4*bad >= bad+len(good)
		}
		reached = reached && !c.good && !n.tripped[w]
		if reached {
			n.tripped[w] = true
		}
		tripped = append(tripped, reached)
	}
	return tripped
}

// note counts a good recipient that was not counted of late.
func (n *naive) note(now int64, c *claim) {
	_, noted := n.live(now, c, true)
	if c.value == 0 || !slices.ContainsFunc(noted, func(e naiveEvent) bool {
		return e.value == c.value && e.at > now-c.period.Milliseconds()/goodAgain
	}) {
		n.charge(now, []claim{*c})
	}
}

// clear forgets what is not younger than upto, and tells its sum.
func (n *naive) clear(now, upto int64, c *claim) (sum milli) {
	_, events := n.live(now, c, false)
	for _, e := range events {
		if e.at <= upto {
			sum += e.points
			n.tripped[e.window2] = false
		}
	}
	n.events = slices.DeleteFunc(n.events, func(e naiveEvent) bool { return e.window2 == window2{c.key, c.rule} && e.at <= upto })
	return sum
}

// windows that the random sequences go over: weights, distinct values, a long
// and a short period, a share.
var (
	testKeys = []key{
		{kind: byAddress, prefix: netip.MustParsePrefix("192.0.2.1/32")},
		{kind: byNetwork, prefix: netip.MustParsePrefix("192.0.2.0/24")},
		{kind: byLogin, login: "alice"},
		{kind: byPair, login: "alice", prefix: netip.MustParsePrefix("192.0.2.1/32")},
	}
	testRules = []claim{
		{rule: "plain", points: 1000, terms: terms{limit: 5000, period: time.Hour, keep: maxMarks}},
		{rule: "weights", points: 300, terms: terms{limit: 2000, period: time.Hour, keep: maxMarks}},
		{rule: "slow", points: 1000, terms: terms{limit: 8000, period: 24 * time.Hour, keep: maxMarks}},
		{rule: "share", points: 1000, terms: terms{limit: 4000, period: 2 * time.Hour, keep: maxMarks, share: true}},
	}
)
