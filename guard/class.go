package guard

import "sync/atomic"

// A class is what many sentences have in common: with a million bans there are
// a few dozen, so a ban has its class's number in place of texts.
type class struct {
	kind      sentenceKind
	by        keyKind
	simulated bool
	scope     string
	cause
}

// A cause is what led to a sentence: the rule, and its limit as written.
type cause struct{ rule, limit string }

// classes gives classes numbers, for good: there are no more than rules, scopes
// and limits that were ever written in a configuration of the fleet. Readers
// take no lock; writers are serialised by the caller.
type classes struct {
	// list grows at its end only, so that whoever has an older one may go on
	// reading it.
	list    atomic.Pointer[[]class]
	numbers map[class]uint32
	active  []int // how many of each are in force
	// simulated is how many of those a dry run has passed. It may be read
	// without the lock: mostly there are none, and nobody needs to look.
	simulated atomic.Int32
	// strict is, in the same way, how many of those that are real are no bans.
	strict atomic.Int32
	// last is the class asked for last: the next is most likely the same.
	last       class
	lastNumber uint32
}

// number gives a class's number.
func (cs *classes) number(c class) uint32 {
	if len(cs.active) > 0 && c == cs.last {
		return cs.lastNumber
	}
	n, known := cs.numbers[c]
	if !known {
		n = uint32(len(cs.active))
		cs.numbers[c], cs.active = n, append(cs.active, 0)
		var list []class
		if old := cs.list.Load(); old != nil {
			list = *old
		}
		list = append(list, c)
		cs.list.Store(&list)
	}
	cs.last, cs.lastNumber = c, n
	return n
}

// count counts sentences of a class that are in force.
func (cs *classes) count(n uint32, by int) {
	cs.active[n] += by
	switch c := cs.of(n); {
	case c.simulated:
		cs.simulated.Add(int32(by))
	case c.kind != banned:
		cs.strict.Add(int32(by))
	}
}

// of gives the class with a number.
func (cs *classes) of(n uint32) *class { return &(*cs.list.Load())[n] }

// is tells whether sentences of a class may have a key.
func (c *class) is(k *sentenceKey) bool {
	return c.kind == k.kind && c.by == k.key.kind && c.simulated == k.simulated && c.scope == k.scope
}

// class gives the sentence's class.
func (s *sentence) class() class {
	return class{s.kind, s.key.kind, s.simulated, s.scope, s.cause}
}
