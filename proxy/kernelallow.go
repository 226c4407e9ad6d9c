package proxy

import (
	"context"
	"time"

	"github.com/cilium/ebpf"
)

// Allow entries are few, but one that is missing in the kernel would shut out
// who must not be: so the whole list is read again wherever a change alone does
// not tell.

// allowSet gives the trie of the networks that are allowed.
func (f *kernelFilter) allowSet() (*ebpf.Map, error) {
	f.mu.Lock()
	if f.allow != nil {
		defer f.mu.Unlock()
		return f.allow.trie, nil
	}
	set, err := newFilterSet("reeve_allow")
	if err != nil {
		f.mu.Unlock()
		return nil, err
	}
	f.allow = set
	f.mu.Unlock()
	return set.trie, f.readAllowed()
}

// recheckAllowed has the allow entries read again.
func (f *kernelFilter) recheckAllowed() {
	select {
	case f.stale <- struct{}{}:
	default:
	}
}

// keepAllowed reads the allow entries again whenever that is asked for, until
// ctx ends.
func (f *kernelFilter) keepAllowed(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.stale:
		}
		for f.readAllowed() != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}
}

// readAllowed makes the trie agree with the guard's list. What changes are
// about meanwhile is newer than the list and stays.
func (f *kernelFilter) readAllowed() error {
	f.reading.Lock()
	defer f.reading.Unlock()
	f.mu.Lock()
	if f.allow == nil {
		f.mu.Unlock()
		return nil
	}
	f.allow.touched = map[filterKey]bool{}
	f.mu.Unlock()
	list := f.allowed()
	f.mu.Lock()
	defer f.mu.Unlock()
	set := f.allow
	if set == nil {
		return nil
	}
	touched := set.touched
	set.touched = nil
	wanted := map[filterKey]bool{}
	var failed error
	for _, a := range list {
		key, ok := newFilterKey(a.Prefix)
		if !ok {
			continue
		}
		wanted[key] = true
		if !touched[key] {
			if err := set.trie.Put(key, forever); err != nil {
				failed = err
			}
		}
	}
	for _, key := range set.keys() {
		if !wanted[key] && !touched[key] {
			_ = set.trie.Delete(key)
		}
	}
	return failed
}
