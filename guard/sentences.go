package guard

import (
	"container/heap"
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
)

// sentences are all sentences and when each has its next change. The caller
// serialises. A million bans are nothing unusual, so what there is one of for
// each is small, and holds few pointers for the garbage collector to follow.
type sentences struct {
	// addrs are those whose key has no login, and logins the others.
	addrs  map[addrSentence]*sentence
	logins map[sentenceKey]*sentence
	scopes map[string]uint32 // the numbers of the scopes in addrs' keys

	due dueHeap
	// counts are those in force, and crowds the banned IPv6 addresses of each
	// /48: with a million bans nobody goes through all to count them.
	counts map[banLabel]*int
	crowds map[crowdScope]int32
	// simulated is how many of those in force a dry run has passed. It may be
	// read without the lock: mostly there are none, and nobody needs to look.
	simulated atomic.Int32
	// strict is, in the same way, how many of those that are real are no bans.
	strict atomic.Int32
	// last is a label with its count: the next is most likely the same.
	last      banLabel
	lastCount *int
}

// An addrSentence is a sentenceKey without a login, and without pointers.
type addrSentence struct {
	hi, lo uint64
	scope  uint32
	kind   sentenceKind
	by     keyKind
	bits   int8
	flags  uint8 // 1: simulated, 2: IPv4
}

// A crowdScope is an IPv6 network in a scope.
type crowdScope struct {
	hi    uint64 // the first half of its address
	scope uint32
}

func newSentences() sentences {
	return sentences{
		addrs: make(map[addrSentence]*sentence), logins: make(map[sentenceKey]*sentence), scopes: make(map[string]uint32),
		counts: make(map[banLabel]*int), crowds: make(map[crowdScope]int32),
	}
}

// expect makes room for n sentences.
func (ss *sentences) expect(n int) {
	ss.addrs = make(map[addrSentence]*sentence, n)
	ss.due = make(dueHeap, 0, n)
}

// short gives the key in addrs; ok is false if it has a login.
func (ss *sentences) short(k *sentenceKey) (short addrSentence, ok bool) {
	if k.key.login != "" {
		return short, false
	}
	b := k.key.prefix.Addr().As16()
	short = addrSentence{
		hi: binary.BigEndian.Uint64(b[:8]), lo: binary.BigEndian.Uint64(b[8:]),
		scope: ss.number(k.scope), kind: k.kind, by: k.key.kind, bits: int8(k.key.prefix.Bits() - 1),
	}
	if k.simulated {
		short.flags |= 1
	}
	if k.key.prefix.Addr().Is4() {
		short.flags |= 2
	}
	return short, true
}

// number gives a scope's number.
func (ss *sentences) number(scope string) uint32 {
	n, known := ss.scopes[scope]
	if !known {
		n = uint32(len(ss.scopes))
		ss.scopes[scope] = n
	}
	return n
}

// get gives the sentence of a key, or nil.
func (ss *sentences) get(k sentenceKey) *sentence {
	if short, ok := ss.short(&k); ok {
		return ss.addrs[short]
	}
	return ss.logins[k]
}

// active gives the sentence in force, or nil.
func (ss *sentences) active(k sentenceKey, now int64) *sentence {
	if s := ss.get(k); s != nil && s.active && s.until > now {
		return s
	}
	return nil
}

func (ss *sentences) len() int { return len(ss.addrs) + len(ss.logins) }

// put adds or changes a sentence.
func (ss *sentences) put(s *sentence) {
	if s.active {
		ss.count(s)
	} else {
		ss.uncount(s)
	}
	if old := ss.get(s.sentenceKey); old == s {
		heap.Fix(&ss.due, int(s.place))
		return
	} else if old != nil {
		ss.drop(old)
	}
	ss.enter(s)
	heap.Push(&ss.due, s)
}

func (ss *sentences) enter(s *sentence) {
	if short, ok := ss.short(&s.sentenceKey); ok {
		ss.addrs[short] = s
	} else {
		ss.logins[s.sentenceKey] = s
	}
}

// load adds a sentence of the store; when all are there, loaded must be called.
func (ss *sentences) load(s *sentence) {
	ss.count(s)
	ss.enter(s)
	s.place = int32(len(ss.due))
	ss.due = append(ss.due, s)
}

func (ss *sentences) loaded() { heap.Init(&ss.due) }

func (ss *sentences) drop(s *sentence) {
	ss.uncount(s)
	heap.Remove(&ss.due, int(s.place))
	if short, ok := ss.short(&s.sentenceKey); ok {
		delete(ss.addrs, short)
	} else {
		delete(ss.logins, s.sentenceKey)
	}
}

// walkBatch is how many sentences are gone through at a time, some 50 µs.
const walkBatch = 512

// walk calls f with every sentence. The lock, which the caller holds, is let
// go now and then, so that no client's answer waits for an operator's listing;
// what comes and goes meanwhile is or is not among them. f may drop the
// sentence that it is given.
func (ss *sentences) walk(lock *sync.Mutex, f func(*sentence)) {
	n := 0
	rest := func() {
		if n++; n%walkBatch == 0 {
			lock.Unlock()
			lock.Lock()
		}
	}
	for _, s := range ss.addrs {
		f(s)
		rest()
	}
	for _, s := range ss.logins {
		f(s)
		rest()
	}
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
	if label != ss.last || ss.lastCount == nil {
		if ss.counts[label] == nil {
			ss.counts[label] = new(int)
		}
		ss.last, ss.lastCount = label, ss.counts[label]
	}
	switch {
	case s.simulated:
		ss.simulated.Add(int32(by))
	case s.kind != banned:
		ss.strict.Add(int32(by))
	}
	if *ss.lastCount += by; *ss.lastCount == 0 {
		delete(ss.counts, label)
		ss.lastCount = nil
	}
	if s.kind != banned || s.simulated || s.key.kind != byAddress || s.key.prefix.Addr().Is4() {
		return
	}
	crowd := ss.crowd(s.key.prefix.Addr(), s.scope)
	if ss.crowds[crowd] += int32(by); ss.crowds[crowd] == 0 {
		delete(ss.crowds, crowd)
	}
}

// crowd gives the crowd that an IPv6 address belongs to.
func (ss *sentences) crowd(a netip.Addr, scope string) crowdScope {
	b := network(a).Addr().As16()
	return crowdScope{binary.BigEndian.Uint64(b[:8]), ss.number(scope)}
}

// crowded gives how many addresses of an IPv6 address's /48 are banned.
func (ss *sentences) crowded(a netip.Addr, scope string) int {
	return int(ss.crowds[ss.crowd(a, scope)])
}

// A dueHeap has the sentence first whose next change comes first.
type dueHeap []*sentence

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].next() < h[j].next() }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = int32(i), int32(j)
}
func (h *dueHeap) Push(x any) {
	s := x.(*sentence)
	s.place = int32(len(*h))
	*h = append(*h, s)
}
func (h *dueHeap) Pop() any {
	old := *h
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return s
}
