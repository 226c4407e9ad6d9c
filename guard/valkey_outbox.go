package guard

import (
	"strings"
	"sync"
	"time"
)

// An outbox remembers which of this node's lasting changes the store may not
// have, over restarts and crashes. An entry is written to this node's own store
// in one transaction with the change itself, so there is never the one without
// the other; it goes some time after the store has taken the change. What comes
// twice changes nothing there: a change has its stamp from the beginning.
//
// An entry has the stamp, and whether the change took something away. What a
// ban or an allow entry is, is in its own bucket; what is forgiven is in the
// key. So an entry takes some 60 bytes, and there is one for each ban, allow
// entry and removal of an outage at most. It goes with the ban's history.
type outbox struct {
	// keep hands over records for this node's own store.
	keep func(...record) <-chan struct{}

	mu      sync.Mutex
	entries map[string]*unsent
}

// An unsent is an entry of an outbox.
type unsent struct {
	stamp
	gone bool
	// told is when the store has taken the change; zero: it has not.
	told time.Time
}

func newOutbox(keep func(...record) <-chan struct{}) *outbox {
	return &outbox{keep: keep, entries: make(map[string]*unsent)}
}

// outboxKey is an entry's key.
func outboxKey(r record) string { return r.bucket + "\x00" + r.key }

// put makes the entry of a change. The caller keeps the record together with
// the change, and tells the store only then.
func (o *outbox) put(r record, s stamp) record {
	e := &unsent{stamp: s, gone: r.value == nil}
	k := outboxKey(r)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.entries[k] = e
	return stamped(record{bucket: bucketOutbox, key: k, value: []byte{flag(e.gone)}}, s)
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// readUnsent reads an entry that was kept.
func readUnsent(value []byte) (*unsent, bool) {
	s, rest, ok := readStamp(value)
	if !ok || len(rest) != 1 || rest[0] > 1 {
		return nil, false
	}
	return &unsent{stamp: s, gone: rest[0] == 1}, true
}

// told says that the store has taken a change.
func (o *outbox) told(r record, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e := o.entries[outboxKey(r)]; e != nil {
		e.told = now
	}
}

// drop takes entries away, for there is a later change or the thing is over.
// It gives the records that do the same on disk.
func (o *outbox) drop(records ...record) []record {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []record
	for _, r := range records {
		if k := outboxKey(r); o.entries[k] != nil {
			delete(o.entries, k)
			out = append(out, record{bucket: bucketOutbox, key: k})
		}
	}
	return out
}

// sweep takes away the entries of what the store has had for so long that its
// replicas have it, too.
func (o *outbox) sweep(now time.Time) {
	var out []record
	o.mu.Lock()
	for k, e := range o.entries {
		if !e.told.IsZero() && now.Sub(e.told) > resendWithin {
			delete(o.entries, k)
			out = append(out, record{bucket: bucketOutbox, key: k})
		}
	}
	o.mu.Unlock()
	if len(out) > 0 {
		o.keep(out...)
	}
}

// young gives the entries of what the store has been told.
func (o *outbox) young() []resumed {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []resumed
	for k, e := range o.entries {
		if !e.told.IsZero() {
			bucket, key, _ := strings.Cut(k, "\x00")
			out = append(out, resumed{record{bucket: bucket, key: key}, e})
		}
	}
	return out
}

// A resumed is an entry whose change is to be told again.
type resumed struct {
	record
	*unsent
}

// resume takes up what an earlier process has not told the store, or has told
// it of late. Nobody uses the guard yet.
func (f *fleet) resume(list []resumed) {
	s := f.share
	oldest := f.g.clock.now().Add(-removedFor).UnixMilli()
	var out, over []record
	for _, r := range list {
		s.outbox.entries[outboxKey(r.record)] = r.unsent
		id, ok := f.recall(&r)
		if !ok || r.at < oldest {
			over = append(over, r.record)
			continue
		}
		if r.bucket == bucketForgive {
			f.forgiven = append(f.forgiven, r)
		} else {
			s.versions.heard(id, r.stamp, 0, false)
		}
		out = append(out, stamped(r.record, r.stamp))
	}
	f.g.writer.keep(s.outbox.drop(over...)...)
	s.writer.put(out...)
}

// recall completes an entry with what it is about, and gives that one's id. ok
// is false if it makes no sense any more.
func (f *fleet) recall(r *resumed) (id uint64, ok bool) {
	if r.bucket == bucketForgive {
		var u UnbanRequest
		u.Target, u.Rule, _ = strings.Cut(r.key, "\x00")
		r.value = []byte(mustJSON(u))
		return 0, true
	}
	if id, ok = f.share.id(r.record); !ok || r.gone {
		return id, ok
	}
	if r.bucket == bucketAllow {
		f.g.mu.Lock()
		a, ok := f.g.allows[r.key]
		f.g.mu.Unlock()
		r.value = encodeJSON(a)
		return id, ok
	}
	k, err := decodeSentenceKey([]byte(r.key), plainText)
	if err != nil {
		return 0, false
	}
	f.g.mu.Lock()
	s := f.g.sentences.get(k)
	f.g.mu.Unlock()
	if s == nil {
		return 0, false // its history is over
	}
	list := []sentence{*s}
	f.g.complete(list)
	r.value = list[0].record().value
	return id, true
}

// resend tells the store again what it has been told of late: a failover may
// have lost that, and too little for anybody to notice.
func (f *fleet) resend() {
	var list []missed
	for _, r := range f.share.outbox.young() {
		m := f.share.missing(r.record)
		if _, ok := f.recall(&r); !ok {
			continue
		}
		if r.bucket == bucketForgive {
			f.share.writer.put(stamped(r.record, r.stamp))
			continue
		}
		m.record = r.record
		list = append(list, m)
	}
	f.share.offerMissed(list)
}

// forgiveAgain clears the store's counters of what was forgiven before a
// restart. What came since then stays.
func (f *fleet) forgiveAgain() {
	for _, r := range f.forgiven {
		var u UnbanRequest
		u.Target, u.Rule, _ = strings.Cut(r.key, "\x00")
		f.g.forgive(u, f.share.versions.fleet(r.stamp).at-f.link.ahead.Load(), true)
	}
	f.forgiven = nil
}
