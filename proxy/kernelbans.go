package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"mailreeve/guard"
)

// A filterSet is a trie in the kernel of networks that are banned in one
// scope, or allowed. It is guarded by the filter's mu.
type filterSet struct {
	trie    *ebpf.Map
	entries int
	full    bool
	// touched are the keys that changes were about while a list of the guard's
	// is being read in: what the list says of them is older. Nil otherwise.
	touched map[filterKey]bool
}

// A filterEntry is a network and how long it is in the trie.
type filterEntry struct {
	key filterKey
	end bootTime
}

func newFilterSet(name string) (*filterSet, error) {
	trie, err := newTrie(name, 8)
	if err != nil {
		return nil, fmt.Errorf("make trie: %w", err)
	}
	return &filterSet{trie: trie, touched: map[filterKey]bool{}}, nil
}

func (s *filterSet) close() { s.trie.Close() }

// touch notes that a change is about a key.
func (s *filterSet) touch(key filterKey) {
	if s.touched != nil {
		s.touched[key] = true
	}
}

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

// makeSets makes the tries that the services need and that are not there yet,
// with what is in force. Changes that come meanwhile go before that.
func (f *kernelFilter) makeSets(services []*service) error {
	fresh, err := f.newSets(services)
	if err != nil || len(fresh) == 0 {
		return err
	}
	lists := map[*filterSet][]filterEntry{}
	f.inForce(func(ch guard.Change) {
		set := f.allow
		key, ok := newFilterKey(ch.Prefix)
		if ch.Kind == guard.BanAdded {
			set = fresh[ch.Scope]
			ok = ok && !ch.Soft && !key.holdsIPv4(ch.Prefix)
		}
		if ok && set != nil && set.touched != nil {
			lists[set] = append(lists[set], filterEntry{key, bootTimeOf(ch.Until)})
		}
	})
	// Who is allowed is let through before anybody is dropped.
	if f.allow.touched != nil {
		if err := f.fill(f.allow, lists[f.allow]); err != nil {
			return err
		}
	}
	for _, set := range fresh {
		if err := f.fill(set, lists[set]); err != nil {
			f.noteFull(set, err)
		}
	}
	return nil
}
// fillAtOnce is how many entries are put in while changes have to wait: a few
// milliseconds' worth.
const fillAtOnce = 2048

// fill enters a list, the longest ban where a network is named twice, without
// what changes have been about since it was read.
func (f *kernelFilter) fill(set *filterSet, list []filterEntry) {
	slices.SortFunc(list, func(a, b filterEntry) int {
		return cmp.Or(slices.Compare(a.key.Addr[:], b.key.Addr[:]), cmp.Compare(a.key.Bits, b.key.Bits), cmp.Compare(b.end, a.end))
	})
	list = slices.CompactFunc(list, func(a, b filterEntry) bool { return a.key == b.key })
	keys, ends := make([]filterKey, 0, fillAtOnce), make([]bootTime, 0, fillAtOnce)
	for chunk := range slices.Chunk(list, fillAtOnce) {
		f.mu.Lock()
		keys, ends = keys[:0], ends[:0]
		for _, e := range chunk {
			if !set.touched[e.key] {
				keys, ends = append(keys, e.key), append(ends, e.end)
			}
		}
		n, err := set.trie.BatchUpdate(keys, ends, nil)
		if errors.Is(err, ebpf.ErrNotSupported) {
			n, err = putEach(set.trie, keys, ends)
		}
		set.entries += n
		if err != nil {
			f.noteFull(set, err)
		}
		f.mu.Unlock()
		if err != nil {
			break
		}
	}
	f.mu.Lock()
	set.touched = nil
	f.mu.Unlock()
}

// putEach is a batch for kernels before 5.13.
func putEach(m *ebpf.Map, keys []filterKey, ends []bootTime) (int, error) {
	for i := range keys {
		if err := m.Put(keys[i], ends[i]); err != nil {
			return i, err
		}
	}
	return len(keys), nil
}

// noteFull says once that a trie takes no more.
func (f *kernelFilter) noteFull(set *filterSet, err error) {
	if !set.full {
		set.full = true
		f.log.Warn("further bans are refused after the handshake", "entries", set.entries, "error", err)
	}
}

// changed follows the guard. It is called by the guard before a deciding call
// of its returns, in the order of what happened to a network, and does not
// wait.
func (f *kernelFilter) changed(ch guard.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch ch.Kind {
	case guard.BanAdded, guard.BanRemoved:
		key, ok := newBanKey(ch.Prefix)
		set := f.sets[ch.Scope]
		if set == nil || !ok {
			return
		}
		set.touch(key)
		if ch.Kind == guard.BanRemoved || ch.Soft {
			set.remove(key)
		} else if err := set.put(key, bootTimeOf(ch.Until)); err != nil {
			f.noteFull(set, err)
		}
	case guard.AllowAdded:
		key, ok := newFilterKey(ch.Prefix)
		if f.allow == nil || !ok {
			return
		}
		f.allow.touch(key)
		if f.allow.trie.Put(key, forever) != nil {
			f.recheckAllowed()
		}
	case guard.AllowRemoved:
		// The same network may still be allowed for another reason.
		f.recheckAllowed()
	}
}
