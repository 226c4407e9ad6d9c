package guard

import (
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"

	"mailreeve/protocol"
)

// stats counts for metrics and status.
type stats struct {
	inFlight atomic.Int64

	falseBans falseBans

	mu       sync.Mutex
	events   map[eventLabel]uint64
	outcomes map[protocol.Outcome]uint64
	refused  map[protocol.Verdict]uint64
	sentence map[banLabel]uint64
}

type eventLabel struct {
	kind     protocol.Kind
	listener string
}

type banLabel struct {
	kind      sentenceKind
	rule      string
	scope     string
	simulated bool
}

func newStats() *stats {
	return &stats{
		events:    make(map[eventLabel]uint64),
		outcomes:  make(map[protocol.Outcome]uint64),
		refused:   make(map[protocol.Verdict]uint64),
		sentence:  make(map[banLabel]uint64),
		falseBans: falseBans{recent: make(map[netip.Prefix]int64)},
	}
}

func (s *stats) event(kind protocol.Kind, listener string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events[eventLabel{kind, listener}]++
}

func (s *stats) outcome(out protocol.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcomes[out]++
}

func (s *stats) refusal(v protocol.Verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[v]++
}

// sentenced counts a sentence of a rule, or one by hand.
func (s *stats) sentenced(k sentenceKey, rule string, now int64) {
	s.mu.Lock()
	s.sentence[banLabel{k.kind, rule, k.scope, k.simulated}]++
	s.mu.Unlock()
	if k.kind == banned && k.key.kind == byAddress && rule != manualRule {
		s.falseBans.banned(k.key.prefix, now)
	}
}

// bansTotal gives how many real bans there have been.
func (s *stats) bansTotal() (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l, c := range s.sentence {
		if l.kind == banned && !l.simulated {
			n += c
		}
	}
	return n
}

// copies gives the counters by label.
func (s *stats) copies() (map[eventLabel]uint64, map[protocol.Outcome]uint64, map[protocol.Verdict]uint64, map[banLabel]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.events), maps.Clone(s.outcomes), maps.Clone(s.refused), maps.Clone(s.sentence)
}

// falseBans estimates how many bans hit the wrong one: an address that logs in
// within an hour of its ban, or of the ban's end.
type falseBans struct {
	mu     sync.Mutex
	recent map[netip.Prefix]int64 // when the ban began, or ended
	most   int                    // see slim
	total  int
	hits   int
}

func (f *falseBans) banned(addr netip.Prefix, now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total++
	if len(f.recent) < defaultMaxAddresses {
		f.recent[addr] = now
	}
}

func (f *falseBans) ended(addr netip.Prefix, now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.recent[addr]; ok {
		f.recent[addr] = now
	}
}

func (f *falseBans) succeeded(addr netip.Prefix, now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at, ok := f.recent[addr]; ok && now-at < falseBanWithin.Milliseconds() {
		f.hits++
		delete(f.recent, addr)
	}
}

// sweep forgets what ended long ago; bans last at most as long as keep says.
func (f *falseBans) sweep(now int64, banned func(netip.Prefix) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for addr, at := range f.recent {
		if now-at >= falseBanWithin.Milliseconds() && !banned(addr) {
			delete(f.recent, addr)
		}
	}
	f.recent = slim(f.recent, &f.most)
}

func (f *falseBans) read() (hits, total int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hits, f.total
}
