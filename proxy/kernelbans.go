package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"mailreeve/guard"
)

// A filterSet is a trie in the kernel of networks that are banned in one
// scope, or allowed. It is guarded by the filter's mu.
type filterSet struct {
	trie    *ebpf.Map
	entries int
	full    bool
	// touched are the keys that changes were about while what is in force is
	// being read in, which is older. Nil otherwise.
	touched map[filterKey]bool
	// late are allow entries that found no room, until they find some or go.
	late map[filterKey]bool
}

// A setName says what a filterSet holds.
type setName struct {
	allow bool
	scope string // of bans
}

// setOf tells which set a change is about.
func setOf(ch guard.Change) setName {
	if ch.Kind == guard.AllowAdded || ch.Kind == guard.AllowRemoved {
		return setName{allow: true}
	}
	return setName{scope: ch.Scope}
}

// setsOf lists the sets that a service's program looks at. A ban is for a
// service if it is for all scopes, for the service's, or for itself.
func setsOf(svc *service) []setName {
	scopes := []string{"all", svc.Scope, svc.Name}
	slices.Sort(scopes)
	names := []setName{{allow: true}}
	for _, scope := range slices.Compact(scopes) {
		names = append(names, setName{scope: scope})
	}
	return names
}

func newFilterSet(name string) (*filterSet, error) {
	trie, err := newTrie(name)
	if err != nil {
		return nil, fmt.Errorf("make trie: %w", err)
	}
	return &filterSet{trie: trie, touched: map[filterKey]bool{}, late: map[filterKey]bool{}}, nil
}

func (s *filterSet) close() { s.trie.Close() }

// put enters a network, in place of what was there. Before Linux 6.13 a trie
// cannot tell whether a key is new; a deletion can.
func (s *filterSet) put(key filterKey, end bootTime) error {
	s.remove(key)
	if err := s.trie.Put(key, end); err != nil {
		return err
	}
	s.entries++
	return nil
}

// remove takes a network out. Without it there it does nothing.
func (s *filterSet) remove(key filterKey) {
	if s.trie.Delete(key) == nil {
		s.entries--
	}
}

// enterable tells whether what a change brings belongs into the kernel.
func enterable(ch guard.Change, key filterKey) bool {
	switch ch.Kind {
	case guard.AllowAdded:
		return true
	case guard.BanAdded:
		return !ch.Soft && !key.reachesIPv4(ch.Prefix)
	}
	return false
}

// changed follows the guard. It is called by the guard before a deciding call
// of its returns, in the order of what happened to a network, and does not
// wait.
func (f *kernelFilter) changed(ch guard.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changedLocked(ch)
}

func (f *kernelFilter) changedLocked(ch guard.Change) {
	key, ok := newFilterKey(ch.Prefix)
	set := f.sets[setOf(ch)]
	if set == nil || !ok {
		return
	}
	if set.touched != nil {
		set.touched[key] = true
	}
	delete(set.late, key)
	if !enterable(ch, key) {
		set.remove(key)
		return
	}
	err := set.put(key, bootTimeOf(ch.Until))
	if err == nil {
		return
	}
	f.noteFull(set, err)
	if ch.Kind == guard.AllowAdded {
		// A ban less is harmless, an allow entry less is not.
		set.late[key] = true
		time.AfterFunc(time.Second, func() { f.tryLate(set, key, ch) })
	}
}

// tryLate enters what found no room, unless it has gone meanwhile.
func (f *kernelFilter) tryLate(set *filterSet, key filterKey, ch guard.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sets[setOf(ch)] == set && set.late[key] {
		f.changedLocked(ch)
	}
}

// noteFull says once that a trie takes no more.
func (f *kernelFilter) noteFull(set *filterSet, err error) {
	if !set.full {
		set.full = true
		f.log.Warn("further bans are refused after the handshake", "entries", set.entries, "error", err)
	}
}

// makeSets makes the sets that the services need and that are not there yet.
// Changes reach them from now on; what was in force before is entered later,
// by fill, but for what is allowed.
func (f *kernelFilter) makeSets(services []*service) (map[setName]*filling, error) {
	fresh, err := f.newSets(services)
	if err != nil || len(fresh) == 0 {
		return fresh, err
	}
	allowed := setName{allow: true}
	if made := fresh[allowed]; made != nil {
		f.list(guard.AllowAdded, fresh)
		if err := f.fill(allowed, made); err != nil {
			return fresh, fmt.Errorf("enter what is allowed: %w", err)
		}
		delete(fresh, allowed)
	}
	return fresh, nil
}

// list has sets know what is in force.
func (f *kernelFilter) list(kind guard.ChangeKind, fresh map[setName]*filling) {
	f.inForce(kind, func(ch guard.Change) {
		key, ok := newFilterKey(ch.Prefix)
		if made := fresh[setOf(ch)]; made != nil && ok && enterable(ch, key) {
			made.list = append(made.list, filterEntry{key, bootTimeOf(ch.Until)})
		}
	})
}

// newSets makes the sets that are missing.
func (f *kernelFilter) newSets(services []*service) (map[setName]*filling, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh := map[setName]*filling{}
	for _, svc := range services {
		for _, name := range setsOf(svc) {
			if f.sets[name] != nil {
				continue
			}
			kind := "reeve_bans"
			if name.allow {
				kind = "reeve_allow"
			}
			set, err := newFilterSet(kind)
			if err != nil {
				return fresh, err
			}
			f.sets[name], fresh[name] = set, &filling{set: set}
		}
	}
	return fresh, nil
}

// A filterEntry is a network and how long it is in a trie.
type filterEntry struct {
	key filterKey
	end bootTime
}

// A filling is a set that was just made and what is to be entered into it.
type filling struct {
	set  *filterSet
	list []filterEntry
}

// fillBans enters the bans that are in force: a million take seconds, of which
// to list them is one, and until then accept refuses them. What finds no room is
// left out.
func (f *kernelFilter) fillBans(fresh map[setName]*filling) {
	if len(fresh) == 0 {
		return
	}
	f.list(guard.BanAdded, fresh)
	for name, made := range fresh {
		if err := f.fill(name, made); err != nil {
			f.log.Warn("further bans are refused after the handshake", "scope", name.scope, "error", err)
		}
	}
}

// fillAtOnce is how many entries are put in while changes have to wait: about
// a millisecond's worth.
const fillAtOnce = 256

// fill enters a list, the longest ban where a network is named twice, without
// what changes have been about since it was read.
func (f *kernelFilter) fill(name setName, made *filling) error {
	slices.SortFunc(made.list, func(a, b filterEntry) int {
		return cmp.Or(slices.Compare(a.key.Addr[:], b.key.Addr[:]),
			cmp.Compare(a.key.Bits, b.key.Bits), cmp.Compare(b.end, a.end))
	})
	list := slices.CompactFunc(made.list, func(a, b filterEntry) bool { return a.key == b.key })
	made.list = nil
	var err error
	for chunk := range slices.Chunk(list, fillAtOnce) {
		if err = f.fillChunk(name, made.set, chunk); err != nil {
			break
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	made.set.touched = nil
	return err
}

func (f *kernelFilter) fillChunk(name setName, set *filterSet, chunk []filterEntry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sets[name] != set {
		return nil // a reload has done away with it
	}
	keys, ends := make([]filterKey, 0, len(chunk)), make([]bootTime, 0, len(chunk))
	for _, e := range chunk {
		if !set.touched[e.key] {
			keys, ends = append(keys, e.key), append(ends, e.end)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	n, err := set.trie.BatchUpdate(keys, ends, nil)
	if errors.Is(err, ebpf.ErrNotSupported) { // before Linux 5.13
		for n, err = 0, nil; n < len(keys) && err == nil; n++ {
			err = set.trie.Put(keys[n], ends[n])
		}
	}
	set.entries += n
	return err
}
