package guard

import (
	"encoding/binary"
	"math"
	"net/netip"
	"sync/atomic"
)

// A row is a sentence on an address or network in 40 bytes without a pointer:
// what Admit and the growth of bans need. Its reason and its evidence are in the
// store, and are read when somebody asks. The end of its history follows from
// its length. What Admit needs is in the row itself, of which two fit in a line
// of the processor's cache; the rest is apart, see coldOf.
//
// Rows are changed by one at a time and read by Admit without a lock: once a row
// has its tag, which is written last, it is about one network in one scope for
// good.
type row struct {
	hi, lo atomic.Uint64 // the address; IPv4 is v4-mapped
	state  atomic.Uint64 // see banEnd
	// what is the class's number (28 bits), flags (4 bits) and the score.
	what atomic.Uint64
}

// A banEnd is a row's state: when it ends in milliseconds (48 bits, all set:
// never), the prefix length (8 bits), and what follows. 0 is a free row.
type banEnd uint64

const (
	endTime     banEnd = 1<<48 - 1
	endWidth           = 48 // the bits before the prefix length
	endIPv4     banEnd = 1 << 56
	endSoft     banEnd = 1 << 57
	endEnforced banEnd = 1 << 58 // Admit minds it
	endActive   banEnd = 1 << 59
	endGone     banEnd = 1 << 60 // taken out
	endInUse    banEnd = 1 << 63

	// endNetwork are the bits that are about the network.
	endNetwork = 0xff<<endWidth | endIPv4

	// blockedForever is what the configuration blocks.
	blockedForever = endTime | endEnforced | endActive | endInUse

	whatClass  = 36 // the bits before the class's number
	whatManual = 1 << 32
	whatStored = 1 << 33
)

func (e banEnd) soft() bool          { return e&endSoft != 0 }
func (e banEnd) over(now int64) bool { return e&endTime <= banEnd(now) }
func (e banEnd) width() int          { return int(uint8(e >> endWidth)) }
func (e banEnd) live() bool          { return e&(endInUse|endGone) == endInUse }

// until gives the end as sentences have it.
func (e banEnd) until() int64 {
	if e&endTime == endTime {
		return forever
	}
	return int64(e & endTime)
}

// end gives what the sentence's row has for its state.
func (s *sentence) end() banEnd {
	e := endInUse | min(banEnd(max(s.until, 1)), endTime) | s.network()
	if s.soft {
		e |= endSoft
	}
	if s.active {
		e |= endActive
	}
	if s.enforced() {
		e |= endEnforced
	}
	return e
}

// network gives the bits that are about the key's network.
func (k *sentenceKey) network() banEnd {
	p := k.key.prefix
	e := banEnd(uint8(p.Bits())) << endWidth
	if p.Addr().Is4() {
		e |= endIPv4
	}
	return e
}

// enforced tells whether Admit minds the sentence.
func (s *sentence) enforced() bool { return s.kind == banned && s.active && !s.simulated }

// words gives an address as two words. IPv4 is v4-mapped.
func words(a netip.Addr) (hi, lo uint64) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// coldOf gives what of a sentence is beside its row: when it began in
// milliseconds (48 bits), and how manieth it is.
func coldOf(s *sentence) uint64 {
	since := uint64(min(max(s.since, 0), int64(endTime)))
	return since<<16 | uint64(min(s.repeats, math.MaxUint16))
}

// fill writes a sentence into a free row, or into its own.
func (p *rollPart) fill(i int, s *sentence, class uint32) {
	r := &p.rows[i]
	if r.state.Load() == 0 {
		hi, lo := words(s.key.prefix.Addr())
		r.hi.Store(hi)
		r.lo.Store(lo)
	}
	what := uint64(class)<<whatClass | uint64(uint32(min(max(s.score, math.MinInt32), math.MaxInt32)))
	if s.manual {
		what |= whatManual
	}
	if s.told() {
		what |= whatStored
	}
	r.what.Store(what)
	r.state.Store(uint64(s.end()))
	p.cold[i] = coldOf(s)
}

// copyFrom makes a free row what another is.
func (r *row) copyFrom(o *row) {
	r.hi.Store(o.hi.Load())
	r.lo.Store(o.lo.Load())
	r.what.Store(o.what.Load())
	r.state.Store(o.state.Load())
}

func (r *row) class() uint32 { return uint32(r.what.Load() >> whatClass) }

// read gives the row's sentence, but for its reason and its evidence.
func (p *rollPart) read(i int, cs *classes, s *sentence) {
	r, cold := &p.rows[i], p.cold[i]
	e, what := banEnd(r.state.Load()), r.what.Load()
	c := cs.of(uint32(what >> whatClass))
	*s = sentence{
		sentenceKey: sentenceKey{kind: c.kind, scope: c.scope, simulated: c.simulated, key: key{kind: c.by, prefix: r.prefix(e)}},
		cause:       c.cause,
		since:       int64(cold >> 16), until: e.until(),
		score: milli(int32(what)), repeats: int32(uint16(cold)),
		soft: e.soft(), active: e&endActive != 0, manual: what&whatManual != 0, stored: what&whatStored != 0,
	}
	s.forget = historyEnd(s.since, s.until)
}

// historyEnd gives the end of the history of a sentence.
func historyEnd(since, until int64) int64 {
	if until == forever {
		return forever
	}
	return until + historyFactor*(until-since)
}

// next is when something happens to the row's sentence.
func (p *rollPart) next(i int) int64 {
	e := banEnd(p.rows[i].state.Load())
	if e&endActive != 0 {
		return e.until()
	}
	return historyEnd(int64(p.cold[i]>>16), e.until())
}

// prefix gives the row's network.
func (r *row) prefix(e banEnd) netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], r.hi.Load())
	binary.BigEndian.PutUint64(b[8:], r.lo.Load())
	a := netip.AddrFrom16(b)
	if e&endIPv4 != 0 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, e.width())
}
