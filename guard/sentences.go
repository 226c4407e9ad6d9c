package guard

import (
	"container/heap"
	"sync"
)

// sentences are all sentences and when each has its next change. The caller
// serialises. A million bans are nothing unusual, so those on addresses and
// networks are in a roll; those on logins are few.
type sentences struct {
	roll   *roll
	logins map[sentenceKey]*sentence
	due    dueHeap // of logins
	// crowds are the banned IPv6 addresses of each /48 and scope; nil unless
	// somebody wants to know.
	crowds map[crowd48]int32
}

func newSentences(w widths) sentences {
	return sentences{roll: newRoll(w), logins: make(map[sentenceKey]*sentence)}
}

// get gives a copy of the sentence of a key, without its reason and evidence,
// or nil.
func (ss *sentences) get(k sentenceKey) *sentence {
	if k.key.login != "" {
		if s := ss.logins[k]; s != nil {
			c := *s
			return &c
		}
		return nil
	}
	p, i, _ := ss.roll.find(&k)
	if p == nil {
		return nil
	}
	s := new(sentence)
	p.read(i, &ss.roll.classes, s)
	return s
}

// active gives the sentence in force, or nil.
func (ss *sentences) active(k sentenceKey, now int64) *sentence {
	if s := ss.get(k); s != nil && s.active && s.until > now {
		return s
	}
	return nil
}

func (ss *sentences) len() int { return int(ss.roll.live.Load()) + len(ss.logins) }

// put adds or changes a sentence.
func (ss *sentences) put(s *sentence) {
	if ss.crowds != nil {
		ss.uncrowd(s.sentenceKey)
		ss.crowd(s)
	}
	if s.key.login == "" {
		ss.roll.put(s)
		return
	}
	kept := s.kept()
	if old := ss.logins[s.sentenceKey]; old != nil {
		ss.count(old, -1)
		kept.place = old.place
		*old = kept
		heap.Fix(&ss.due, int(old.place))
	} else {
		ss.logins[s.sentenceKey] = &kept
		heap.Push(&ss.due, &kept)
	}
	ss.count(&kept, 1)
}

// drop forgets a sentence.
func (ss *sentences) drop(k sentenceKey) {
	if ss.crowds != nil {
		ss.uncrowd(k)
	}
	if k.key.login == "" {
		ss.roll.drop(&k)
		return
	}
	if s := ss.logins[k]; s != nil {
		ss.count(s, -1)
		heap.Remove(&ss.due, int(s.place))
		delete(ss.logins, k)
	}
}

// count counts a login's sentence among those of its class.
func (ss *sentences) count(s *sentence, by int) {
	if s.active {
		ss.roll.classes.count(ss.roll.classes.number(s.class()), by)
	}
}

// counts gives how many of each class are in force.
func (ss *sentences) counts() map[banLabel]int {
	out := make(map[banLabel]int)
	for i, n := range ss.roll.classes.active {
		if n > 0 {
			c := ss.roll.classes.of(uint32(i))
			out[banLabel{c.kind, c.rule, c.scope, c.simulated}] += n
		}
	}
	return out
}

// walk calls f with every sentence, without its reason and evidence. The lock,
// which the caller holds, is given up now and then, so that no client's answer
// waits for an operator's listing; what comes and goes meanwhile is or is not
// among them. f may change or drop the sentence that it is given, and must not
// keep it.
func (ss *sentences) walk(lock *sync.Mutex, f func(*sentence)) {
	var s sentence
	for part := range rollParts {
		// A part is gone through in one go: when it grows, its rows move.
		ss.roll.each(part, func(p *rollPart, i int) {
			p.read(i, &ss.roll.classes, &s)
			f(&s)
		})
		rest(lock)
	}
	ss.walkLogins(lock, f)
}

// walkLogins is walk for the sentences on logins.
func (ss *sentences) walkLogins(lock *sync.Mutex, f func(*sentence)) {
	n := 0
	for _, s := range ss.logins {
		c := *s
		f(&c)
		if n++; n%loginsAtOnce == 0 {
			rest(lock)
		}
	}
}

// rest lets others have a turn.
func rest(lock *sync.Mutex) {
	lock.Unlock()
	lock.Lock()
}

// loginsAtOnce is how many are gone through before others have a turn.
const loginsAtOnce = 512

// next gives sentences to which something is to happen by now, some hundred at
// a time. The caller sees to all of them.
func (ss *sentences) next(now int64) (list []sentence) {
	if len(ss.due) > 0 && ss.due[0].next() <= now {
		list = append(list, *ss.due[0])
	}
	for part := range rollParts {
		if more := ss.roll.due(part, now); len(more) > 0 {
			return append(list, more...)
		}
	}
	return list
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
