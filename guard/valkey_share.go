package guard

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"time"
)

// changesKept is about how many changes the stream keeps, some 500 bytes each.
// A node that was away for more than that many reads everything anew.
const changesKept = 100_000

// A share is what this node tells the fleet: bans, allow entries, places. What
// the writer cannot send waits there, of several changes of one thing the last,
// with times of this node's clock: by how much that is off may be unknown while
// the store is away.
type share struct {
	link     *link
	names    names
	script   script
	node     string
	writer   *writer
	versions *versions
	outbox   *outbox
	keepFor  func() time.Duration // for how long a place is worth knowing

	// order is held while a change gets its version and is handed to the
	// writers, so that what waits there is always the latest.
	order sync.Mutex

	mu sync.Mutex
	// told are the places that the fleet knows, and of when: another success
	// there is news only after a while.
	told map[string]int64
}

// placeNews is how much later a success at a known place must be to be told.
const placeNews = time.Hour

// maxTold bounds the places known to be known, about 100 bytes each.
const maxTold = 1_000_000

// bucketForgive is no bucket of a store: what is in it goes to the stream only.
const bucketForgive = nameForgive

// put keeps what was decided here in this node's own store, and tells the
// fleet's what is its business. The channel is closed once the fleet's has it,
// or while that is away this node's own.
func (f *share) put(records []record) <-chan struct{} {
	now := f.link.clock().UnixMilli()
	f.order.Lock()
	defer f.order.Unlock()
	kept := slices.Clip(records)
	var out []record
	for _, r := range records {
		switch r.bucket {
		case bucketBans, bucketAllow:
			if id, ok := f.id(r); ok {
				s := f.versions.next(id, now)
				kept = append(kept, f.outbox.put(r, s))
				out = append(out, stamped(r, s))
			}
		case bucketPlaces:
			out = append(out, f.news(r)...)
		}
	}
	written := f.outbox.keep(kept...)
	if len(out) == 0 {
		return written
	}
	shared := f.writer.put(out...)
	if f.link.client() == nil {
		return written
	}
	return shared
}

// taken says that the store has taken records. What has changed again meanwhile
// is still to be told.
func (f *share) taken(records []record) {
	f.order.Lock()
	defer f.order.Unlock()
	now := time.Now()
	for _, r := range records {
		if !f.writer.waits(r) {
			f.outbox.told(r, now)
		}
	}
}

// over says that what there was in this node's own store is over. The store
// forgets by itself, and needs not be told now what it was.
func (f *share) over(records []record) []record {
	f.order.Lock()
	defer f.order.Unlock()
	f.writer.drop(records...)
	return append(records, f.outbox.drop(records...)...)
}

// offerPlaces tells the fleet the places of a login that it does not know.
func (f *share) offerPlaces(r record) { f.writer.put(f.news(r)...) }

// A missed is what the store does not know, though this node does, and which
// version of it that is.
type missed struct {
	record
	id    uint64
	have  version
	known bool
	since int64
}

// missing gives a record whose latest version the store does not know.
func (f *share) missing(r record) missed {
	m := missed{record: r}
	m.id, _ = f.id(r)
	m.have, m.known = f.versions.get(m.id)
	return m
}

// offerMissed shares what the store does not know. What has changed since it
// was read from memory has been shared with that change.
func (f *share) offerMissed(list []missed) {
	f.order.Lock()
	defer f.order.Unlock()
	var out []record
	for i := range list {
		m := &list[i]
		if s, ok := f.versions.again(m.id, m.have, m.known, m.since); ok {
			out = append(out, stamped(m.record, s))
		}
	}
	f.writer.put(out...)
}

// id gives the key of a ban or an allow entry as versions know it.
func (f *share) id(r record) (uint64, bool) {
	if r.bucket == bucketAllow {
		return versionID(f.versions, r.key), true
	}
	k, err := decodeSentenceKey([]byte(r.key), func(b []byte) string { return string(b) })
	return versionID(f.versions, k), err == nil
}

// stampSize is the length of a stamp before a record's value: a time, a node's
// number, and whether the time is that node's own.
const stampSize = 8 + 4 + 1

// stamped puts a stamp before a record's value.
func stamped(r record, s stamp) record {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, stampSize+len(r.value)), uint64(s.at))
	b = binary.BigEndian.AppendUint32(b, s.node)
	r.value = append(append(b, flag(s.own)), r.value...)
	return r
}

// readStamp takes the stamp from before a record's value.
func readStamp(b []byte) (s stamp, value []byte, ok bool) {
	if len(b) < stampSize || b[stampSize-1] > 1 {
		return s, nil, false
	}
	s.at, s.node = int64(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint32(b[8:])
	s.own = b[stampSize-1] == 1
	return s, b[stampSize:], saneMoment(s.at)
}

// news gives the places of a login that the fleet does not know, one a record,
// with its time as the version.
func (f *share) news(r record) []record {
	var list []place
	if r.value == nil || decodeJSON(r.value, &list) != nil {
		return nil
	}
	var out []record
	for _, p := range list {
		if f.isNews(r.key, p) {
			out = append(out, stamped(record{bucket: bucketPlaces, key: r.key + "\x00" + p.Addr.String()}, stamp{at: p.Last, own: true}))
		}
	}
	return out
}

// isNews tells whether the fleet does not know a place, and takes it to know
// it from now on.
func (f *share) isNews(login string, p place) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := login + "\x00" + p.Addr.String()
	if at, ok := f.told[k]; ok && p.Last-at < placeNews.Milliseconds() {
		return false
	}
	if len(f.told) >= maxTold {
		clear(f.told)
	}
	f.told[k] = p.Last
	return true
}

// forgive tells the other nodes to forget counters. The channel is closed once it
// is sure that it does, also after a crash.
func (f *share) forgive(u UnbanRequest) <-chan struct{} {
	r := record{bucket: bucketForgive, key: u.Target + "\x00" + u.Rule, value: []byte(mustJSON(u))}
	f.order.Lock()
	defer f.order.Unlock()
	s := f.versions.stamp(f.link.clock().UnixMilli())
	noted := f.outbox.keep(f.outbox.put(r, s))
	f.writer.put(stamped(r, s))
	return noted
}

// A change is a record that waits, as it goes to the store.
type change struct {
	sharedRecord
	id uint64 // 0 if it has no version
}

// change makes a record that waits one for the store, by the fleet's clock. ok
// is false if there is a later one, or it makes no sense.
func (f *share) change(r record) (c change, ok bool) {
	s, value, ok := readStamp(r.value)
	if !ok {
		return c, false
	}
	if r.bucket == bucketForgive {
		c.Name, c.Field, _ = strings.Cut(nameForgive+"\x00"+r.key, "\x00")
		c.Version, c.Value = f.versions.fleet(s).at, string(value)
		return c, true
	}
	ahead := f.link.ahead.Load()
	if r.bucket == bucketPlaces {
		login, addr, _ := strings.Cut(r.key, "\x00")
		c.Name, c.Field, c.Version = namePlaces+escapeLogin(login), addr, s.at+ahead
		c.Value, c.Until = itoa(c.Version), c.Version+f.keepFor().Milliseconds()
		return c, true
	}
	if c.id, ok = f.id(r); !ok {
		return c, false
	}
	s = f.versions.fleet(s)
	if f.versions.superseded(c.id, s) {
		return c, false
	}
	if r.bucket == bucketAllow {
		c.sharedRecord, ok = f.changeAllow(r.key, value, s.at, ahead)
	} else {
		c.sharedRecord, ok = f.changeBan(r.key, value, s.at, ahead)
	}
	c.Node = s.node
	return c, ok
}

func (f *share) changeAllow(k string, value []byte, version, ahead int64) (sharedRecord, bool) {
	if len(value) == 0 {
		return shareAllow(k, nil, f.node, version, ahead), true
	}
	a := new(Allowed)
	if decodeJSON(value, a) != nil {
		return sharedRecord{}, false
	}
	return shareAllow(k, a, f.node, version, ahead), true
}

func (f *share) changeBan(k string, value []byte, version, ahead int64) (sharedRecord, bool) {
	text := func(b []byte) string { return string(b) }
	if len(value) == 0 {
		k, err := decodeSentenceKey([]byte(k), text)
		return shareRemoval(k, version), err == nil
	}
	var s sentence
	if s.decode([]byte(k), value, text) != nil {
		return sharedRecord{}, false
	}
	return shareBan(&s, f.node, version, ahead), true
}
