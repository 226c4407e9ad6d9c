package guard

import (
	"cmp"
	"hash/maphash"
	"sync"
	"time"
)

// versions order what the fleet says of one ban or allow entry. A change is
// later than all that its node knew of the same key: it has the time, or if
// that is not later, one more than what is known. So what is taken back a
// moment after it was pronounced, and pronounced again, comes to every node in
// that order, whatever their clocks say. Of changes that did not know of each
// other the later by the fleet's clock wins, and of those of one millisecond
// that of the node with the larger number: any order would do, but it must be
// the same at all nodes and in the store.
//
// A key is known by 64 bits of a hash with a seed of this process: an entry
// costs some 50 bytes, and of a million two meet once in 40 million nodes.
type versions struct {
	seed maphash.Seed
	// node is this node's number.
	node uint32
	// clock gives by how many milliseconds the fleet's clock is ahead of ours;
	// 0 and false if that is not known yet.
	clock func() (ahead int64, known bool)

	mu    sync.Mutex
	known map[uint64]version
}

// A stamp says when a change was made, and by which node.
type stamp struct {
	// at is the fleet's time in milliseconds, or a little more.
	at int64
	// node is the number of the node that made it.
	node uint32
	// own: at is that node's own time, which did not know the fleet's yet.
	own bool
}

// compare compares two stamps in the fleet's time.
func (s stamp) compare(o stamp) int {
	return cmp.Or(cmp.Compare(s.at, o.at), cmp.Compare(s.node, o.node))
}

// sane tells whether a stamp that was read can be one.
func (s stamp) sane() bool { return s.at > 0 && s.at <= maxMoment }

// A version is what is known of a key: a stamp, whose fields it has so that it
// takes 16 bytes, and more.
type version struct {
	at   int64
	node uint32
	own  bool
	// unkept: this node's own store is still to be given what the version is of.
	unkept bool
	// heard is the reading of the store that had it.
	heard uint16
}

func newVersion(s stamp, heard uint16) version {
	return version{at: s.at, node: s.node, own: s.own, heard: heard}
}

func (e version) stamp() stamp { return stamp{e.at, e.node, e.own} }

// tidyLeast is how many versions are not worth tidying.
const tidyLeast = 100_000

func newVersions(node uint32, clock func() (int64, bool)) *versions {
	return &versions{seed: maphash.MakeSeed(), node: node, clock: clock, known: make(map[uint64]version)}
}

// fleet gives a stamp in the fleet's time.
func (v *versions) fleet(s stamp) stamp {
	if s.own {
		ahead, _ := v.clock()
		s.at, s.own = s.at+ahead, false
	}
	return s
}

func versionID[K comparable](v *versions, k K) uint64 { return maphash.Comparable(v.seed, k) }

// next stamps what is decided here at a time of this node.
func (v *versions) next(id uint64, now int64) stamp {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.stamp(now)
	e, known := v.known[id]
	if known {
		s.at = max(s.at, v.fleet(e.stamp()).at+1)
	}
	v.known[id] = newVersion(s, e.heard)
	return s
}

// stamp stamps what needs no order.
func (v *versions) stamp(now int64) stamp {
	ahead, sure := v.clock()
	return stamp{at: now + ahead, node: v.node, own: !sure}
}

// get gives what is known of a key.
func (v *versions) get(id uint64) (e version, known bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, known = v.known[id]
	return e, known
}

// again gives the stamp for telling once more what was of version have, or if
// nothing was known of it, is since then by this node's clock. ok is false if
// there has been another meanwhile.
func (v *versions) again(id uint64, have version, was bool, since int64) (s stamp, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, known := v.known[id]
	switch {
	case known != was || e != have:
		return s, false
	case !known:
		s = stamp{at: since, node: v.node, own: true}
		v.known[id] = newVersion(s, 0)
		return s, true
	}
	return e.stamp(), true
}

// told says that the store has been told what has a stamp of the fleet's time.
func (v *versions) told(id uint64, s stamp) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if e := v.known[id]; v.fleet(e.stamp()).compare(s) <= 0 {
		e.at, e.node, e.own = s.at, s.node, false
		v.known[id] = e
	}
}

// superseded tells whether something later is known of a key.
func (v *versions) superseded(id uint64, s stamp) bool {
	e, known := v.get(id)
	return known && v.fleet(e.stamp()).compare(s) > 0
}

// A standing of a version is how it compares to what is known.
type versionStanding uint8

const (
	versionOld versionStanding = iota
	versionSame
	versionNew
	versionFirst // nothing is known to compare it to
)

// compare compares a stamp that was heard. That the store has what is known of
// the key, or something later, in this reading is noted.
func (v *versions) compare(id uint64, s stamp, reading uint16) versionStanding {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, known := v.known[id]
	if !known {
		return versionFirst
	}
	standing := versionSame
	switch c := s.compare(v.fleet(e.stamp())); {
	case c < 0:
		return versionOld
	case c > 0:
		standing = versionNew
	}
	e.heard = reading
	v.known[id] = e
	return standing
}

// heard takes note of a stamp whose change was taken over.
func (v *versions) heard(id uint64, s stamp, reading uint16, unkept bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := newVersion(s, reading)
	e.unkept = unkept
	v.known[id] = e
}

// keep tells whether what a version is of is still to be kept, and takes it for
// kept.
func (v *versions) keep(id uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.known[id]
	if !e.unkept {
		return false
	}
	e.unkept = false
	v.known[id] = e
	return true
}

// untidy tells whether most versions are of what is no more, if live is how much
// there is.
func (v *versions) untidy(live int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.known) > 2*live+tidyLeast
}

// tidy forgets the versions of what is not among live, unless they are young:
// an older word of what was taken back may still be on its way.
func (v *versions) tidy(live map[uint64]struct{}, now int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	young := now - time.Hour.Milliseconds()
	kept := make(map[uint64]version, len(live))
	for id, e := range v.known {
		if _, ok := live[id]; ok || v.fleet(e.stamp()).at > young {
			kept[id] = e
		}
	}
	v.known = kept
}
