package guard

import (
	"slices"
	"sync"
)

// queues hold the attempts that wait because a limit is full of unsettled
// reservations, in the order in which they came, one queue for each key. Only
// the head of a queue tries to reserve; whoever comes later joins behind.
type queues struct {
	mu    sync.Mutex
	byKey map[key][]*waiter
	all   int
}

// A waiter is an attempt that waits.
type waiter struct {
	key  key
	wake chan struct{} // has one element when it should look again
}

func newQueues() *queues { return &queues{byKey: make(map[key][]*waiter)} }

// behind tells whether somebody waits for one of the claims' keys.
func (q *queues) behind(claims []claim) (key, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range claims {
		if len(q.byKey[claims[i].key]) > 0 {
			return claims[i].key, true
		}
	}
	return key{}, false
}

// join adds w to the end of a key's queue; nil if there are too many.
func (q *queues) join(k key, w *waiter) *waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w == nil {
		if q.all >= maxWaiting {
			return nil
		}
		q.all++
		w = &waiter{wake: make(chan struct{}, 1)}
	} else {
		q.takeLocked(w)
	}
	w.key = k
	q.byKey[k] = append(q.byKey[k], w)
	w.nudge() // what was settled in the meantime has not woken it
	return w
}

// leave takes w out and gives the next one its turn.
func (q *queues) leave(w *waiter) {
	if w == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.takeLocked(w)
	q.all--
}

func (q *queues) takeLocked(w *waiter) {
	list := q.byKey[w.key]
	i := slices.Index(list, w)
	list = slices.Delete(list, i, i+1)
	if len(list) == 0 {
		delete(q.byKey, w.key)
		return
	}
	q.byKey[w.key] = list
	if i == 0 {
		list[0].nudge()
	}
}

// first tells whether it is w's turn.
func (q *queues) first(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.byKey[w.key][0] == w
}

// settled wakes the heads of the claims' queues.
func (q *queues) settled(claims []claim) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range claims {
		if list := q.byKey[claims[i].key]; len(list) > 0 {
			list[0].nudge()
		}
	}
}

// sentenced wakes everybody: one of them may wait in vain from now on.
func (q *queues) sentenced() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, list := range q.byKey {
		for _, w := range list {
			w.nudge()
		}
	}
}

// waiting counts those who wait.
func (q *queues) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.all
}

func (w *waiter) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
