package guard

import (
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
	cause
	since, until int64 // until: forever is math.MaxInt64
	forget       int64 // when the history ends
	score        milli
	// reason and evidence are set while a sentence is on its way to the store,
	// or has been read from there; stored tells that it has any. evidence is a
	// list of Scored as encodeEvidence gives it.
	reason, evidence string

	repeats int32 // how manieth it is
	place   int32 // in the heap of those on logins
	stored  bool
	soft    bool
	manual  bool
	active  bool
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

// told tells whether the sentence has, in the store or on its way there, a reason
// or evidence.
func (s *sentence) told() bool { return s.stored || s.reason != "" || s.evidence != "" }

// kept gives what stays in memory of the sentence.
func (s *sentence) kept() sentence {
	k := *s
	k.stored = s.told()
	k.reason, k.evidence = "", ""
	return k
}

// ban gives the sentence as operators see it, without its evidence.
func (s *sentence) ban() Ban {
	b := Ban{
		Target: s.key.String(), Kind: s.kind.String(), Prefix: s.key.prefix, Login: s.key.login,
		Scope: s.scope, Rule: s.rule, Reason: s.reason, Since: time.UnixMilli(s.since),
		Count: int(s.repeats), Soft: s.soft, Simulated: s.simulated, Score: s.score.float(), Limit: s.limit,
	}
	if s.until != forever {
		b.Until = time.UnixMilli(s.until)
	}
	return b
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
	s := ss.get(k)
	if s == nil {
		s = &sentence{sentenceKey: k}
	}
	if s.active && s.until > now {
		return nil
	}
	if s.forget <= now {
		s.repeats = 0
	}
	s.repeats++
	s.cause, s.reason = r.cause(t)
	s.evidence, s.stored, s.manual = "", false, r.name == manualRule
	s.since, s.score = now, t.sum
	s.term(now, length(r.first, r.max, r.growth, int(s.repeats), random))
	return s
}

// cause gives the cause of a sentence: the rule, and its limit as it is written
// or, if the network's deeds have lowered it, as it was.
func (r *rule) cause(t *total) (c cause, reason string) {
	if t.limit > 0 && t.limit < r.limit {
		lowered := Limit{t.limit.float(), Duration(r.period)}.String()
		return cause{r.name, lowered}, "half of " + r.written + ", for its network has used half of its own limit"
	}
	return cause{r.name, r.written}, ""
}

// term sets the sentence's end and the end of its history.
func (s *sentence) term(now int64, d time.Duration) {
	s.active = true
	if d == time.Duration(Forever) {
		s.until, s.forget = forever, forever
		return
	}
	s.until = now + d.Milliseconds()
	s.forget = historyEnd(s.since, s.until)
}

// evidence makes a ban's evidence of the marks that led to it. What is beyond
// banEvidence is summed up in one line, so that the points still add up.
func evidence(marks []mark) string {
	if len(marks) == 0 {
		return ""
	}
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
	return encodeEvidence(out)
}

// events gives the sentence's evidence.
func (s *sentence) events() []Scored {
	out, err := decodeEvidence(s.evidence)
	if err != nil {
		return nil
	}
	return out
}

// scored gives a mark as operators see it.
func scored(m *mark) Scored {
	s := Scored{Points: m.points.float()}
	if ev := m.event(); ev != nil {
		s.Event = *ev
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
