package guard

import (
	"container/heap"
	"math"
	"net/netip"
	"strings"
	"time"
)

// A sentence is what follows when a limit is reached, or what an operator
// ordered: a ban, or the guarding of a login. After its end it is kept for a
// while as history, so that a repeat lasts longer.
type sentence struct {
	sentenceKey
	rule, reason string
	limit        string // as written
	since, until int64  // until: forever is math.MaxInt64
	forget       int64  // when the history ends
	repeats      int    // how manieth it is
	soft, manual bool
	score        milli
	evidence     []Scored
	stored       []byte // evidence as it was loaded, not yet decoded

	active  bool
	counted bool
	heard   uint32 // the reading of the shared store that had it
	place   int    // in the heap
}

// A sentenceKey names a sentence: there is one at a time of each kind, key and
// scope; simulated ones are apart from real ones.
type sentenceKey struct {
	kind      sentenceKind
	key       key
	scope     string
	simulated bool
}

const forever = math.MaxInt64

// next is when something happens to the sentence.
func (s *sentence) next() int64 {
	if s.active {
		return s.until
	}
	return s.forget
}

// ban gives the sentence as operators see it.
func (s *sentence) ban(evidence bool) Ban {
	b := Ban{
		Target: s.key.String(), Kind: s.kind.String(), Prefix: s.key.prefix, Login: s.key.login,
		Scope: s.scope, Rule: s.rule, Reason: s.reason, Since: time.UnixMilli(s.since),
		Count: s.repeats, Soft: s.soft, Simulated: s.simulated, Score: s.score.float(), Limit: s.limit,
	}
	if s.until != forever {
		b.Until = time.UnixMilli(s.until)
	}
	if evidence {
		b.Events = s.events()
	}
	return b
}

// sentences are all sentences and when each has its next change. The caller
// serialises.
type sentences struct {
	byKey map[sentenceKey]*sentence
	due   dueHeap
	// counts are those in force, and crowds the banned IPv6 addresses of each
	// /48: with a million bans nobody goes through all to count them.
	counts map[banLabel]int
	crowds map[netScope]int
}

// A netScope is a network in a scope.
type netScope struct {
	net   netip.Prefix
	scope string
}

func newSentences() sentences {
	return sentences{
		byKey: make(map[sentenceKey]*sentence), counts: make(map[banLabel]int), crowds: make(map[netScope]int),
	}
}

type dueHeap []*sentence

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].next() < h[j].next() }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}
func (h *dueHeap) Push(x any) {
	s := x.(*sentence)
	s.place = len(*h)
	*h = append(*h, s)
}
func (h *dueHeap) Pop() any {
	old := *h
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return s
}

// count counts a sentence in, and uncount out, by what it is at that time.
func (ss *sentences) count(s *sentence) {
	if !s.counted && s.active {
		s.counted = true
		ss.tally(s, 1)
	}
}

func (ss *sentences) uncount(s *sentence) {
	if s.counted {
		s.counted = false
		ss.tally(s, -1)
	}
}

func (ss *sentences) tally(s *sentence, by int) {
	label := banLabel{s.kind, s.rule, s.scope, s.simulated}
	if ss.counts[label] += by; ss.counts[label] == 0 {
		delete(ss.counts, label)
	}
	if s.kind != banned || s.simulated || s.key.kind != byAddress || s.key.prefix.Addr().Is4() {
		return
	}
	crowd := netScope{network(s.key.prefix.Addr()), s.scope}
	if ss.crowds[crowd] += by; ss.crowds[crowd] == 0 {
		delete(ss.crowds, crowd)
	}
}

// put adds or changes a sentence.
func (ss *sentences) put(s *sentence) {
	if s.active {
		ss.count(s)
	} else {
		ss.uncount(s)
	}
	if old := ss.byKey[s.sentenceKey]; old == s {
		heap.Fix(&ss.due, s.place)
		return
	} else if old != nil {
		ss.drop(old)
	}
	ss.byKey[s.sentenceKey] = s
	heap.Push(&ss.due, s)
}

func (ss *sentences) drop(s *sentence) {
	ss.uncount(s)
	heap.Remove(&ss.due, s.place)
	delete(ss.byKey, s.sentenceKey)
}

// active gives the sentence in force, or nil.
func (ss *sentences) active(k sentenceKey, now int64) *sentence {
	if s := ss.byKey[k]; s != nil && s.active && s.until > now {
		return s
	}
	return nil
}

// length is how long the count-th sentence lasts: the first length, multiplied
// by growth for each repeat, at most longest. random in [0,1) lengthens all
// but the first a little.
func length(first, longest time.Duration, growth float64, count int, random float64) time.Duration {
	if first == time.Duration(Forever) {
		return first
	}
	n := min(count-1, maxDoublings)
	f := float64(first) * math.Pow(growth, float64(n))
	if n > 0 {
		f *= 1 + jitterShare*random
	}
	if f >= float64(longest) {
		return longest
	}
	return time.Duration(f).Truncate(time.Second)
}

// severity is how many points one failure of a repeat offender is worth:
// 1, 2, 3, 5, 9, … (as fail2ban counts).
func severity(count int) milli {
	if count == 0 {
		return 1
	}
	return 1<<(min(count, maxDoublings)-1) + 1
}

// pronounce makes the sentence of a rule, or the next one of a repeat
// offender. It returns nil if one is in force already: what is in flight while
// a ban falls does not make the ban longer.
func (ss *sentences) pronounce(k sentenceKey, r *rule, t *total, now int64, random float64) *sentence {
	s := ss.byKey[k]
	if s == nil {
		s = &sentence{sentenceKey: k}
	}
	if s.active && s.until > now {
		return nil
	}
	ss.uncount(s) // it ended a moment ago, and was another rule's
	if s.forget <= now {
		s.repeats = 0
	}
	s.repeats++
	s.rule, s.limit, s.manual, s.reason = r.name, r.written, false, ""
	s.since, s.score = now, t.sum
	s.term(now, length(r.first, r.max, r.growth, s.repeats, random))
	return s
}

// term sets the sentence's end and the end of its history.
func (s *sentence) term(now int64, d time.Duration) {
	s.active = true
	if d == time.Duration(Forever) {
		s.until, s.forget = forever, forever
		return
	}
	s.until = now + d.Milliseconds()
	s.forget = s.until + historyFactor*d.Milliseconds()
}

// evidence makes a ban's evidence of the marks that led to it. What is beyond
// banEvidence is summed up in one line, so that the points still add up.
func evidence(marks []mark) []Scored {
	var out []Scored
	var folded Scored
	var sum milli
	for i := range marks {
		m := &marks[i]
		if more := len(marks) - banEvidence; more > 0 && i <= more {
			if sum += m.points; folded.Folded == 0 {
				folded = scored(m)
			}
			folded.Points = sum.float()
			folded.Folded++
			if i == more {
				out = append(out, folded)
			}
			continue
		}
		out = append(out, scored(m))
	}
	return out
}

// scored gives a mark as operators see it.
func scored(m *mark) Scored {
	s := Scored{Points: m.points.float()}
	if m.ev != nil {
		s.Event = *m.ev
	}
	s.Time = time.UnixMilli(m.at)
	return s
}

// scopeOf gives the scope of a rule's ban for what happened at an origin.
func (r *rule) scopeOf(o *Origin) string {
	switch {
	case r.consequence != banned:
		return ""
	case r.scope != "":
		return r.scope
	}
	return o.Scope
}

// parseTarget reads what an operator names: an address, a network or a login.
func (l *logins) parseTarget(s string) (netip.Prefix, string) {
	if p, err := ParsePrefix(strings.TrimSpace(s)); err == nil {
		return p, ""
	}
	return netip.Prefix{}, l.canonical(s)
}
