package guard

import (
	"container/heap"
	"net/netip"
)

// The memory ledger's tables are bounded. What goes first:
//
//   - of addresses, one of the most crowded network, so that who owns a /48
//     evicts his own; the points that its network has not counted go into the
//     network's entry, where they can be seen;
//   - of logins, one that never succeeded;
//   - else what has the fewest points, and of those the longest untouched,
//     among a few taken at random.
//
// What has unsettled reservations stays. Bans are not in these tables.

// tableBounds bound the entries of each kind.
type tableBounds struct{ addresses, networks, logins int }

func (b tableBounds) of(k keyKind) int {
	switch k {
	case byAddress:
		return b.addresses
	case byNetwork:
		return b.networks
	}
	return b.logins
}

// A crowd is the tracked addresses of one network.
type crowd struct {
	net     netip.Prefix
	members []*entry
	place   int // in the heap
}

// crowds is a heap of networks, the most crowded first.
type crowds struct {
	byNet map[netip.Prefix]*crowd
	heap  crowdHeap
}

type crowdHeap []*crowd

func (h crowdHeap) Len() int           { return len(h) }
func (h crowdHeap) Less(i, j int) bool { return len(h[i].members) > len(h[j].members) }
func (h crowdHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}
func (h *crowdHeap) Push(x any) {
	c := x.(*crowd)
	c.place = len(*h)
	*h = append(*h, c)
}
func (h *crowdHeap) Pop() any {
	old := *h
	c := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return c
}

func (c *crowds) add(e *entry) {
	n := network(e.key.prefix.Addr())
	in := c.byNet[n]
	if in == nil {
		in = &crowd{net: n}
		c.byNet[n] = in
		heap.Push(&c.heap, in)
	}
	e.crowd, e.crowdSlot = in, len(in.members)
	in.members = append(in.members, e)
	heap.Fix(&c.heap, in.place)
}

func (c *crowds) remove(e *entry) {
	in := e.crowd
	last := len(in.members) - 1
	in.members[e.crowdSlot] = in.members[last]
	in.members[e.crowdSlot].crowdSlot = e.crowdSlot
	in.members[last] = nil
	in.members = in.members[:last]
	if last == 0 {
		heap.Remove(&c.heap, in.place)
		delete(c.byNet, in.net)
	} else {
		heap.Fix(&c.heap, in.place)
	}
}

// addLocked makes the entry of a key, evicting another if the table is full.
func (l *memoryLedger) addLocked(k key) *entry {
	for len(l.byKind[k.kind]) >= l.bounds.of(k.kind) {
		if !l.evictLocked(k.kind) {
			break // everything sampled is in use: over the bound for a moment
		}
	}
	e := &entry{key: k, slot: len(l.byKind[k.kind])}
	l.entries[k] = e
	l.byKind[k.kind] = append(l.byKind[k.kind], e)
	if k.kind == byAddress {
		l.crowds.add(e)
	}
	return e
}

func (l *memoryLedger) removeLocked(e *entry) {
	list := l.byKind[e.key.kind]
	last := len(list) - 1
	list[e.slot] = list[last]
	list[e.slot].slot = e.slot
	list[last] = nil
	l.byKind[e.key.kind] = list[:last]
	if e.crowd != nil {
		l.crowds.remove(e)
	}
	delete(l.entries, e.key)
	l.dirty[e.key] = struct{}{}
}

// evictLocked removes one entry of a kind.
func (l *memoryLedger) evictLocked(kind keyKind) bool {
	from := l.byKind[kind]
	if kind == byAddress && len(l.crowds.heap[0].members) > 2 {
		from = l.crowds.heap[0].members
	}
	var victim *entry
	for range evictSample {
		e := from[l.random.IntN(len(from))]
		if !e.pending() && (victim == nil || l.matterLess(e, victim)) {
			victim = e
		}
	}
	if victim == nil {
		return false
	}
	l.evicted[kind]++
	l.removeLocked(victim)
	if kind == byAddress {
		l.foldLocked(victim)
	}
	return true
}

// matterLess tells whether a matters less than b.
func (l *memoryLedger) matterLess(a, b *entry) bool {
	if a.key.login != "" {
		if sa, sb := l.succeeded(a.key.login), l.succeeded(b.key.login); sa != sb {
			return sb
		}
	}
	if pa, pb := a.points(), b.points(); pa != pb {
		return pa < pb
	}
	return a.touched < b.touched
}

// foldLocked adds an evicted address's points to its network's entry, under
// the rules that gave them.
func (l *memoryLedger) foldLocked(e *entry) {
	k := key{kind: byNetwork, prefix: network(e.key.prefix.Addr())}
	for i := range e.windows {
		w := &e.windows[i]
		if w.good {
			continue
		}
		c := claim{key: k, rule: w.rule, terms: w.terms}
		for _, m := range w.marks {
			_, into := l.windowLocked(e.touched, &c)
			into.fold(m, w.period.Milliseconds()/foldedMarks)
		}
	}
	l.dirty[k] = struct{}{}
}

// foldedMarks is about how many marks a period of what was folded takes: with
// one for each event, a flood of sources would fill each network's window.
const foldedMarks = 32

// fold adds the points of an evicted mark without what led to them. Those that
// come within a while of each other are one mark, and last as long as the first.
func (w *window) fold(m mark, within int64) {
	if n := len(w.marks); n > 0 {
		last := &w.marks[n-1]
		if last.trace == nil && last.value == 0 && last.hard == m.hard && m.at < last.at+within {
			last.points += m.points
			w.sum += m.points
			return
		}
	}
	m.value, m.trace = 0, nil
	w.charge(m, maxMarks/16)
}
