package guard

import (
	"encoding/binary"
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
	keepFor  func() time.Duration // for how long a place is worth knowing

	// order is held while a change gets its version and is handed to the
	// writer, so that what waits there is always the latest.
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

// offer shares what was decided here and written to this node's own store, and
// gives a channel that is closed once the fleet's store has it; nil if it is
// none of its business.
func (f *share) offer(records []record) <-chan struct{} {
	now := f.link.clock().UnixMilli()
	f.order.Lock()
	defer f.order.Unlock()
	var out []record
	for _, r := range records {
		switch r.bucket {
		case bucketBans, bucketAllow:
			if id, ok := f.id(r); ok {
				out = append(out, versioned(r, f.versions.next(id, now)))
			}
		case bucketPlaces:
			out = append(out, f.news(r)...)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return f.writer.put(out...)
}

// A missed is what the store does not know, though this node does, and which
// version of it that is.
type missed struct {
	record
	id    uint64
	have  version
	known bool
	since int64
}

// offerMissed shares what the store does not know. What has changed since it
// was read from memory has been shared with that change.
func (f *share) offerMissed(list []missed) {
	f.order.Lock()
	defer f.order.Unlock()
	var out []record
	for i := range list {
		m := &list[i]
		if at, ok := f.versions.again(m.id, m.have, m.known, m.since); ok {
			out = append(out, versioned(m.record, at))
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

// versioned puts a version before a record's value.
func versioned(r record, at int64) record {
	r.value = append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(r.value)), uint64(at)), r.value...)
	return r
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
			out = append(out, versioned(record{bucket: bucketPlaces, key: r.key + "\x00" + p.Addr.String()}, p.Last))
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

// forgive tells the other nodes to forget counters.
func (f *share) forgive(r UnbanRequest) {
	f.writer.put(record{bucket: bucketForgive, key: r.Target + "\x00" + r.Rule, value: []byte(mustJSON(r))})
}

// A change is a record that waits, as it goes to the store.
type change struct {
	sharedRecord
	id uint64 // 0 if it has no version
}

// change makes a record that waits one for the store, by the fleet's clock. ok
// is false if there is a later one, or it makes no sense.
func (f *share) change(r record) (c change, ok bool) {
	if r.bucket == bucketForgive {
		c.Name, c.Field, _ = strings.Cut(nameForgive+"\x00"+r.key, "\x00")
		c.Version, c.Value = f.link.now(), string(r.value)
		return c, true
	}
	if len(r.value) < 8 {
		return c, false
	}
	at, ahead := int64(binary.BigEndian.Uint64(r.value)), f.link.ahead.Load()
	value := r.value[8:]
	if r.bucket == bucketPlaces {
		login, addr, _ := strings.Cut(r.key, "\x00")
		c.Name, c.Field, c.Version = namePlaces+escapeLogin(login), addr, at+ahead
		c.Value, c.Until = itoa(at+ahead), at+ahead+f.keepFor().Milliseconds()
		return c, true
	}
	if c.id, ok = f.id(r); !ok {
		return c, false
	}
	version := at + f.link.steady.Load()
	if e, known := f.versions.get(c.id); known && f.versions.fleet(e) > version {
		return c, false
	}
	if r.bucket == bucketAllow {
		c.sharedRecord, ok = f.changeAllow(r.key, value, version, ahead)
	} else {
		c.sharedRecord, ok = f.changeBan(r.key, value, version, ahead)
	}
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
