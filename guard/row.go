package guard

import (
	"encoding/binary"
	"math"
	"net/netip"
	"sync/atomic"
)

// A row is a sentence on an address or network in 48 bytes without a pointer:
// what Admit and the growth of bans need. Its reason and its evidence are in the
// store, and are read when somebody asks.
//
// Rows are changed by one at a time and read by Admit without a lock. state is
// written last, and has another number in it whenever the row is another
// sentence's; so a reader who finds the same state before and after has read one
// sentence.
type row struct {
	hi, lo atomic.Uint64 // the address; IPv4 is v4-mapped
	state  atomic.Uint64
	// class is the class's number in the upper half, 8 bits of prefix length and
	// flags.
	class atomic.Uint64
	// since is when it began in milliseconds (48 bits), and how manieth it is.
	since atomic.Uint64
	// past is for how long its history is kept in seconds, and the score.
	past atomic.Uint64
}

// A banEnd is a row's state: when it ends in milliseconds (48 bits, all set:
// never), how often the row has been another's (12 bits), and what follows.
type banEnd uint64

const (
	endTime        banEnd = 1<<48 - 1
	endUse         banEnd = 1 << 48 // the lowest bit of the number
	endUses        banEnd = 1<<60 - 1<<48
	endSoft        banEnd = 1 << 60
	endEnforced    banEnd = 1 << 61 // Admit minds it
	endActive      banEnd = 1 << 62
	endInUse       banEnd = 1 << 63
	rowIPv4               = 1 << 8 // flags behind the prefix length
	rowManual             = 1 << 9
	rowStored             = 1 << 10
	pastForever           = math.MaxUint32
	blockedForever        = endTime | endEnforced | endActive | endInUse
)

func (e banEnd) soft() bool          { return e&endSoft != 0 }
func (e banEnd) over(now int64) bool { return e&endTime <= banEnd(now) }

// until gives the end as sentences have it.
func (e banEnd) until() int64 {
	if e&endTime == endTime {
		return forever
	}
	return int64(e & endTime)
}

// end packs what a sentence's row says about its end, without its use.
func (s *sentence) end() banEnd {
	e := endInUse | min(banEnd(max(s.until, 1)), endTime)
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

// enforced tells whether Admit minds the sentence.
func (s *sentence) enforced() bool { return s.kind == banned && s.active && !s.simulated }

// words gives an address as two words. IPv4 is v4-mapped.
func words(a netip.Addr) (hi, lo uint64) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// fill writes a sentence into a row.
func (r *row) fill(s *sentence, class uint32) {
	// Nobody is to take a half written row for one that is in force.
	r.state.Store(uint64(banEnd(r.state.Load()) & endUses))
	hi, lo := words(s.key.prefix.Addr())
	r.hi.Store(hi)
	r.lo.Store(lo)
	r.fillRest(s, class)
}

// fillRest writes a sentence into its own row.
func (r *row) fillRest(s *sentence, class uint32) {
	w := uint64(class)<<32 | uint64(uint8(s.key.prefix.Bits()))
	if s.key.prefix.Addr().Is4() {
		w |= rowIPv4
	}
	if s.manual {
		w |= rowManual
	}
	if s.stored {
		w |= rowStored
	}
	r.class.Store(w)
	since := uint64(min(max(s.since, 0), int64(endTime)))
	r.since.Store(since<<16 | uint64(min(s.repeats, math.MaxUint16)))
	past := uint64(pastForever)
	if s.forget != forever {
		past = uint64(min((max(s.forget-s.until, 0)+999)/1000, pastForever-1))
	}
	score := int32(min(max(s.score, math.MinInt32), math.MaxInt32))
	r.past.Store(past<<32 | uint64(uint32(score)))
	r.state.Store(uint64(s.end() | banEnd(r.state.Load())&endUses))
}

// read gives the row's sentence, but for its reason and its evidence.
func (r *row) read(cs *classes, s *sentence) {
	e, w := banEnd(r.state.Load()), r.class.Load()
	c := cs.of(uint32(w >> 32))
	*s = sentence{
		sentenceKey: sentenceKey{kind: c.kind, scope: c.scope, simulated: c.simulated, key: key{kind: c.by, prefix: r.prefix(w)}},
		cause:       c.cause,
		since:       int64(r.since.Load() >> 16), until: e.until(), forget: forever,
		score: milli(int32(r.past.Load())), repeats: int32(uint16(r.since.Load())),
		soft: e.soft(), active: e&endActive != 0, manual: w&rowManual != 0, stored: w&rowStored != 0,
	}
	if past := int64(r.past.Load() >> 32); past != pastForever && s.until != forever {
		s.forget = s.until + past*1000
	}
}

// next is when something happens to the row's sentence.
func (r *row) next() int64 {
	e := banEnd(r.state.Load())
	until := e.until()
	past := int64(r.past.Load() >> 32)
	if e&endActive != 0 || until == forever {
		return until
	}
	if past == pastForever {
		return forever
	}
	return until + past*1000
}

// prefix gives the row's network, of whose class word w is.
func (r *row) prefix(w uint64) netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], r.hi.Load())
	binary.BigEndian.PutUint64(b[8:], r.lo.Load())
	a := netip.AddrFrom16(b)
	if w&rowIPv4 != 0 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, int(uint8(w)))
}

// pageRows is how many rows a page has.
const pageRows = 256

type page [pageRows]row

// A pageInfo is what the one that changes rows knows of a page.
type pageInfo struct {
	// due is a moment before which nothing happens to any of its rows. It
	// takes the place of an order of all rows by time: when it comes, the page
	// is gone through.
	due  int64
	used int
	free int // the first free row; each has the next in hi, pageRows is none
}

// rows are all rows. They never move, so there is no moment at which many are
// copied; an empty page is given back.
type rows struct {
	pages atomic.Pointer[[]atomic.Pointer[page]]
	info  []pageInfo
	open  int // no page before has room
}

// at gives a row by its number, nil if its page is gone.
func (rs *rows) at(n uint32) *row {
	pages := *rs.pages.Load()
	p := pages[n/pageRows].Load()
	if p == nil {
		return nil
	}
	return &p[n%pageRows]
}

// add gives a free row.
func (rs *rows) add() (uint32, *row) {
	for ; ; rs.open++ {
		if rs.open == len(rs.info) {
			rs.addPage()
		}
		i := rs.open
		info := &rs.info[i]
		if info.used == pageRows {
			continue
		}
		p := (*rs.pages.Load())[i].Load()
		if p == nil {
			p = new(page)
			for n := range p {
				p[n].hi.Store(uint64(n + 1))
			}
			(*rs.pages.Load())[i].Store(p)
			*info = pageInfo{due: forever}
		}
		r := &p[info.free]
		n := uint32(i*pageRows + info.free)
		info.free = int(r.hi.Load())
		info.used++
		return n, r
	}
}

// addPage makes room for another page, whose rows come with the first of them.
func (rs *rows) addPage() {
	n := len(rs.info)
	rs.info = append(rs.info, pageInfo{due: forever})
	if old := rs.pages.Load(); old == nil || n == len(*old) {
		next := make([]atomic.Pointer[page], max(16, 2*n))
		for i := range n {
			next[i].Store((*old)[i].Load())
		}
		rs.pages.Store(&next)
	}
}

// remove frees a row.
func (rs *rows) remove(n uint32) {
	i := int(n / pageRows)
	info := &rs.info[i]
	rs.open = min(rs.open, i)
	r := rs.at(n)
	r.state.Store(uint64(banEnd(r.state.Load())&endUses+endUse) & uint64(endUses))
	r.hi.Store(uint64(info.free))
	info.free = int(n % pageRows)
	if info.used--; info.used == 0 {
		(*rs.pages.Load())[i].Store(nil)
	}
}

// due appends to list the rows of a page to which something is to happen by
// now, which the caller sees to, and notes when something will to the others.
func (rs *rows) due(i int, now int64, list []uint32) []uint32 {
	info := &rs.info[i]
	if info.due > now {
		return list
	}
	p := (*rs.pages.Load())[i].Load()
	info.due = forever
	if p == nil {
		return list
	}
	for n := range p {
		r := &p[n]
		if banEnd(r.state.Load())&endInUse == 0 {
			continue
		}
		if next := r.next(); next <= now {
			list = append(list, uint32(i*pageRows+n))
		} else {
			info.due = min(info.due, next)
		}
	}
	return list
}
