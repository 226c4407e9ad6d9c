package guard

import (
	"hash/maphash"
	"sync"
	"time"
)

// versions order what the fleet says of one ban or allow entry. A change is
// later than all that its node knew of the same key: it has the time, or if
// that is not later, one more than what is known. So what is taken back a
// moment after it was pronounced, and pronounced again, comes to every node in
// that order, whatever their clocks say. Of changes that did not know of each
// other the later by the fleet's clock wins.
//
// A key is known by 64 bits of a hash with a seed of this process: an entry
// costs some 50 bytes, and of a million two meet once in 40 million nodes.
type versions struct {
	seed maphash.Seed
	// steady is by how many milliseconds the fleet's clock is ahead of ours.
	steady func() int64

	mu    sync.Mutex
	known map[uint64]version
}

// A version is what is known of a key.
type version struct {
	// at is the fleet's time in milliseconds; of an own one, which the store
	// has not been told, this node's: how much that is off may not be known yet.
	at  int64
	own bool
	// unkept: this node's own store is still to be given what the version is of.
	unkept bool
	// heard is the reading of the store that had it.
	heard uint32
}

// tidyLeast is how many versions are not worth tidying.
const tidyLeast = 100_000

func newVersions(steady func() int64) *versions {
	return &versions{seed: maphash.MakeSeed(), steady: steady, known: make(map[uint64]version)}
}

// fleet gives a version as the fleet's.
func (v *versions) fleet(e version) int64 {
	if e.own {
		return e.at + v.steady()
	}
	return e.at
}

func versionID[K comparable](v *versions, k K) uint64 { return maphash.Comparable(v.seed, k) }

// next gives the version of what is decided here at a time of this node. It is
// this node's time, too.
func (v *versions) next(id uint64, now int64) int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, known := v.known[id]
	at := now
	if known {
		at = max(now, v.fleet(e)-v.steady()+1)
	}
	v.known[id] = version{at: at, own: true, heard: e.heard}
	return at
}

// get gives what is known of a key.
func (v *versions) get(id uint64) (e version, known bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, known = v.known[id]
	return e, known
}

// again gives the version, as this node's time, for telling once more what was
// of version have, or if nothing was known of it, is since then. ok is false if
// there has been another meanwhile.
func (v *versions) again(id uint64, have version, was bool, since int64) (at int64, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, known := v.known[id]
	switch {
	case known != was || e != have:
		return 0, false
	case !known:
		v.known[id] = version{at: since, own: true}
		return since, true
	}
	return v.fleet(e) - v.steady(), true
}

// told says that the store has been told a version.
func (v *versions) told(id uint64, at int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if e := v.known[id]; v.fleet(e) <= at {
		e.at, e.own = at, false
		v.known[id] = e
	}
}

// A standing of a version is how it compares to what is known.
type versionStanding uint8

const (
	versionOld versionStanding = iota
	versionSame
	versionNew
	versionFirst // nothing is known to compare it to
)

// compare compares a version that was heard. That the store has something of
// the key in this reading is noted.
func (v *versions) compare(id uint64, at int64, reading uint32) versionStanding {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, known := v.known[id]
	if !known {
		return versionFirst
	}
	e.heard = reading
	v.known[id] = e
	switch have := v.fleet(e); {
	case at < have:
		return versionOld
	case at == have:
		return versionSame
	}
	return versionNew
}

// heard takes note of a version that was taken over.
func (v *versions) heard(id uint64, at int64, reading uint32, unkept bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.known[id] = version{at: at, heard: reading, unkept: unkept}
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
		if _, ok := live[id]; ok || v.fleet(e) > young {
			kept[id] = e
		}
	}
	v.known = kept
}
