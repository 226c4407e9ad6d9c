package guard

import (
	"strings"
	"sync"
)

// loader takes the store's records into a guard that nobody uses yet. A million
// bans are decoded on all cores, and put into the table by one at a time.
type loader struct {
	g       *Guard
	now     int64
	batches sync.Pool // of *decodedBans

	mu      sync.Mutex
	unknown int
	stale   []record // to be deleted
	unsent  []resumed
}

// decodedBans are bans of one batch, and texts that many have in common.
type decodedBans struct {
	list  []sentence
	stale []record
	names map[string]string
}

func newLoader(g *Guard) *loader {
	l := &loader{g: g, now: g.clock.now().UnixMilli()}
	l.batches.New = func() any { return &decodedBans{names: make(map[string]string)} }
	return l
}

// intern gives a text, the same one for equal texts: a million bans share a
// few rules and scopes.
func (d *decodedBans) intern(b []byte) string {
	if have, ok := d.names[string(b)]; ok {
		return have
	}
	s := string(b)
	if len(d.names) < 10000 {
		d.names[s] = s
	}
	return s
}

// expect makes room for the bans.
func (l *loader) expect(bucket string, n int) {
	if bucket == bucketBans {
		l.g.sentences.roll.reserve(n)
	}
}

// take takes records.
func (l *loader) take(bucket string, list []pair) {
	if bucket == bucketBans {
		l.takeSentences(list)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range list {
		if err := l.takeOne(bucket, p.key, p.value); err != nil {
			l.unknown++
		}
	}
}

func (l *loader) takeOne(bucket string, key, value []byte) error {
	switch bucket {
	case bucketMarks:
		return l.takeEntry(key, value)
	case bucketPlaces:
		var list []place
		if err := decodeJSON(value, &list); err != nil {
			return err
		}
		l.g.places.load(string(key), list, l.now)
	case bucketTrickles:
		var failed map[string]int64
		if err := decodeJSON(value, &failed); err != nil {
			return err
		}
		l.g.memory.loadTrickle(string(key), failed, l.now)
	case bucketOutbox:
		return l.takeUnsent(key, value)
	case bucketAllow:
		var a Allowed
		if err := decodeJSON(value, &a); err != nil {
			return err
		}
		l.takeAllow(string(key), a)
	}
	return nil
}

// takeUnsent takes an entry of the outbox.
func (l *loader) takeUnsent(key, value []byte) error {
	e, ok := readUnsent(value)
	bucket, rest, found := strings.Cut(string(key), "\x00")
	if !ok || !found {
		return errRecord
	}
	l.unsent = append(l.unsent, resumed{record{bucket: bucket, key: rest}, e})
	return nil
}

// takeSentences takes bans.
func (l *loader) takeSentences(list []pair) {
	d := l.batches.Get().(*decodedBans)
	d.list, d.stale = d.list[:0], d.stale[:0]
	unknown := 0
	for _, p := range list {
		if err := d.decode(p, l.now); err != nil {
			unknown++
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range d.list {
		l.g.sentences.put(&d.list[i])
	}
	l.stale = append(l.stale, d.stale...)
	l.unknown += unknown
	l.batches.Put(d)
}

// decode decodes a ban. If the clock has gone back since it was written, the
// ban lasts as long from now as it was to last from its start.
func (d *decodedBans) decode(p pair, now int64) error {
	d.list = append(d.list, sentence{})
	s := &d.list[len(d.list)-1]
	evidence, err := s.decodeHead(p.key, p.value, d.intern)
	if err != nil {
		d.list = d.list[:len(d.list)-1]
		return err
	}
	s.stored = len(evidence) > 0 || s.reason != ""
	if s.since > now {
		back := s.since - now
		s.since = now
		for _, t := range []*int64{&s.until, &s.forget} {
			if *t != forever {
				*t -= back
			}
		}
	}
	if s.active && s.until <= now {
		s.active = false
	}
	if !s.active && s.forget <= now {
		d.list = d.list[:len(d.list)-1]
		d.stale = append(d.stale, record{bucket: bucketBans, key: string(p.key)})
	}
	return nil
}

func (l *loader) takeEntry(key, value []byte) error {
	k, err := decodeKey(key)
	if err != nil {
		return err
	}
	return l.g.memory.load(k, value, l.now)
}
