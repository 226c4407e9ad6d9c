package main

import (
	"slices"
	"sync"
	"sync/atomic"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// recentEvents is how many events are kept in memory for who asks what has
// just happened, about half a kilobyte each.
const recentEvents = 1000

// An eventHub is told of every event by the guard and passes it on: to who
// follows, to the memory of recent ones, and to the event log. It never waits.
// Accepted recipients are not remembered: a busy server has thousands in a
// minute, and who asks what has just happened wants what was amiss.
type eventHub struct {
	// log is nil while none is kept.
	log     atomic.Pointer[eventLog]
	written atomic.Uint64
	dropped atomic.Uint64
	failing atomic.Bool

	mu        sync.Mutex
	recent    []guard.News // a ring once it is full
	next      int          // where the ring's next one goes
	followers []*eventFollower
}

type eventFollower struct{ f func(*guard.News) }

// note takes an event. It is called by the guard and must be quick.
func (h *eventHub) note(n *guard.News) {
	if l := h.log.Load(); l != nil {
		l.note(n)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case n.Kind == protocol.GoodRcpt:
	case len(h.recent) < recentEvents:
		h.recent = append(h.recent, *n)
	default:
		h.recent[h.next] = *n
		h.next = (h.next + 1) % recentEvents
	}
	for _, w := range h.followers {
		w.f(n)
	}
}

// follow gives the latest events, oldest first and at most past, and has f
// called with every one after these. f must be quick, and must not keep what it
// is given. stop ends it.
func (h *eventHub) follow(past int, f func(*guard.News)) (latest []guard.News, stop func()) {
	w := &eventFollower{f}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.followers = append(h.followers, w)
	latest = slices.Concat(h.recent[h.next:], h.recent[:h.next])
	latest = latest[max(0, len(latest)-past):]
	return latest, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.followers = slices.DeleteFunc(h.followers, func(o *eventFollower) bool { return o == w })
	}
}

// use has another event log written, or with nil none, and closes the one
// before.
func (h *eventHub) use(l *eventLog) error {
	if old := h.log.Swap(l); old != nil {
		return old.close()
	}
	return nil
}
