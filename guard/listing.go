package guard

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
)

// Bans lists bans.
func (g *Guard) Bans(f BanFilter) []Ban {
	var out []Ban
	g.EachBan(f, func(b *Ban) bool {
		out = append(out, *b)
		return true
	})
	return out
}

// listBatch is how many bans of a listing are looked at, and read from the
// store, at a time.
const listBatch = 256

// EachBan calls yield with bans in order until it returns false. A million bans
// take some 60 MB until they are in order, and then as much as a few hundred.
// What comes or goes meanwhile is or is not among them.
func (g *Guard) EachBan(f BanFilter, yield func(*Ban) bool) {
	now := g.clock.now().UnixMilli()
	list := g.find(&f, now)
	slices.SortFunc(list, func(a, b listed) int { return g.compare(&a, &b, f.Sort) })
	var batch []sentence
	for len(list) > 0 {
		n := min(len(list), listBatch)
		batch = batch[:0]
		g.mu.Lock()
		for i := range list[:n] {
			if s := g.sentences.listed(&list[i]); s != nil && f.takes(s, now) {
				batch = append(batch, *s)
			}
		}
		g.mu.Unlock()
		list = list[n:]
		bans := g.explain(batch, f.Evidence)
		for i := range bans {
			if !yield(&bans[i]) {
				return
			}
		}
	}
}

// takes tells whether the filter leaves a sentence.
func (f *BanFilter) takes(s *sentence, now int64) bool {
	kind := cmp.Or(f.Kind, "ban")
	return s.active && s.until > now && (kind == "any" || s.kind.String() == kind) &&
		(f.Scope == "" || s.scope == f.Scope) && (f.Rule == "" || s.rule == f.Rule) &&
		(!f.Within.IsValid() || covers(f.Within, s.key.prefix))
}

// A listed is what of a sentence is needed to put it in order and to find it
// again.
type listed struct {
	since, until int64
	hi, lo       uint64
	login        *sentenceKey // nil of those in the roll
	class        uint32
	bits         int16
	family       uint8
}

// find gives what a filter leaves.
func (g *Guard) find(f *BanFilter, now int64) (list []listed) {
	g.mu.Lock()
	defer g.mu.Unlock()
	roll := g.sentences.roll
	g.concerning(f.Within, !f.Within.IsValid(), func(s *sentence) {
		if !f.takes(s, now) {
			return
		}
		l := listed{since: s.since, until: s.until, class: roll.classes.number(s.class()), bits: int16(s.key.prefix.Bits())}
		if a := s.key.prefix.Addr(); a.IsValid() {
			l.hi, l.lo = words(a)
			l.family = uint8(a.BitLen())
		}
		if s.key.login != "" {
			k := s.sentenceKey
			l.login = &k
		}
		list = append(list, l)
	})
	return list
}

// listed gives a sentence of a listing as it is now, nil if it is no more.
func (ss *sentences) listed(l *listed) *sentence {
	if l.login != nil {
		return ss.get(*l.login)
	}
	c := ss.roll.classes.of(l.class)
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], l.hi)
	binary.BigEndian.PutUint64(b[8:], l.lo)
	a := netip.AddrFrom16(b)
	if l.family == 32 {
		a = a.Unmap()
	}
	return ss.get(sentenceKey{c.kind, key{kind: c.by, prefix: netip.PrefixFrom(a, int(l.bits))}, c.scope, c.simulated})
}

// compare puts two in an order that BanFilter names.
func (g *Guard) compare(a, b *listed, by string) int {
	cs := &g.sentences.roll.classes
	c := 0
	switch by {
	case "since":
		c = cmp.Compare(a.since, b.since)
	case "rule":
		c = strings.Compare(cs.of(a.class).rule, cs.of(b.class).rule)
	case "target":
	default:
		c = cmp.Compare(a.until, b.until)
	}
	if c != 0 {
		return c
	}
	return g.byTarget(a, b)
}

// byTarget is the order of what is the same otherwise.
func (g *Guard) byTarget(a, b *listed) int {
	switch {
	case a.family != b.family:
		return cmp.Compare(a.family, b.family)
	case a.hi != b.hi:
		return cmp.Compare(a.hi, b.hi)
	case a.lo != b.lo:
		return cmp.Compare(a.lo, b.lo)
	case a.bits != b.bits:
		return cmp.Compare(a.bits, b.bits)
	case a.login != nil && b.login != nil:
		return cmp.Or(strings.Compare(a.login.key.login, b.login.key.login), strings.Compare(a.login.scope, b.login.scope))
	}
	classes := &g.sentences.roll.classes
	return strings.Compare(classes.of(a.class).scope, classes.of(b.class).scope)
}

func sortBans(bans []Ban, by string) {
	end := func(b *Ban) int64 {
		if b.Forever() {
			return forever
		}
		return b.Until.UnixMilli()
	}
	slices.SortFunc(bans, func(a, b Ban) int {
		target := cmp.Or(a.Prefix.Compare(b.Prefix), strings.Compare(a.Target, b.Target), strings.Compare(a.Scope, b.Scope))
		switch by {
		case "since":
			return cmp.Or(a.Since.Compare(b.Since), target)
		case "target":
			return target
		case "rule":
			return cmp.Or(strings.Compare(a.Rule, b.Rule), target)
		}
		return cmp.Or(cmp.Compare(end(&a), end(&b)), target)
	})
}
