package guard

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// AddBan bans an address or network by hand, at once and across restarts. A ban
// that is in force there in the same scope becomes the operator's, without a
// moment between the two: its end is the later of both and its reason stays,
// unless the request names others, and what led to it stays.
func (g *Guard) AddBan(r BanRequest) (Ordered, error) {
	bans, err := g.AddBans([]BanRequest{r})
	if err != nil {
		return Ordered{}, err
	}
	return bans[0], nil
}

// AddBans bans many by hand, for an import: all or, with an error that names
// the first that will not do, none.
func (g *Guard) AddBans(requests []BanRequest) ([]Ordered, error) {
	set, now := g.set.Load(), g.clock.now()
	keys := make([]sentenceKey, len(requests))
	for i := range requests {
		p, err := g.bannable(&requests[i], now)
		if err != nil {
			return nil, err
		}
		keys[i] = orderKey(set, p, &requests[i])
	}
	standing := g.recall(keys, now.UnixMilli())
	out := make([]Ordered, len(requests))
	written := g.writer.put()
	for i := range requests {
		out[i], written = g.orderByHand(set, keys[i], &requests[i], standing[keys[i]], now)
	}
	awaitDurable(written)
	return out, nil
}

func orderKey(set *settings, p netip.Prefix, r *BanRequest) sentenceKey {
	return sentenceKey{banned, banKey(set, p), cmp.Or(r.Scope, "all"), set.cfg.DryRun}
}

// Standing gives, for each request, the ban in force that it would take the
// place of, without its evidence; nil for none.
func (g *Guard) Standing(requests []BanRequest) []*Ban {
	set, now := g.set.Load(), g.clock.now().UnixMilli()
	out := make([]*Ban, len(requests))
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range requests {
		p, err := ParsePrefix(requests[i].Target)
		if err != nil {
			continue
		}
		if s := g.sentences.active(orderKey(set, p, &requests[i]), now); s != nil {
			b := s.ban()
			out[i] = &b
		}
	}
	return out
}

// recall gives what is in force of some sentences, with what the store has of
// them. No lock is held while it reads.
func (g *Guard) recall(keys []sentenceKey, now int64) map[sentenceKey]sentence {
	var list []sentence
	g.mu.Lock()
	for _, k := range keys {
		if s := g.sentences.active(k, now); s != nil {
			list = append(list, *s)
		}
	}
	g.mu.Unlock()
	g.complete(list)
	found := make(map[sentenceKey]sentence, len(list))
	for _, s := range list {
		found[s.sentenceKey] = s
	}
	return found
}

// orderByHand puts a ban by hand into force, in one change with what it takes
// the place of. The channel is closed when it is durable.
func (g *Guard) orderByHand(set *settings, k sentenceKey, r *BanRequest, stored sentence, now time.Time) (Ordered, <-chan struct{}) {
	length := cmp.Or(r.For.Std(), set.cfg.BanTime.Std())
	manual := &rule{name: manualRule, consequence: banned, scope: k.scope, first: length, max: length, growth: 1}
	g.changes.Lock()
	g.mu.Lock()
	s := g.sentences.pronounce(k, manual, &total{}, now.UnixMilli(), rand.Float64())
	var before *Ban
	if s == nil {
		s = g.sentences.get(k)
		if stored.since == s.since && stored.rule == s.rule {
			s.reason, s.evidence = stored.reason, stored.evidence
		}
		was := s.ban()
		before = &was
		s.takeOver(r, length, now.UnixMilli())
	} else {
		s.reason = r.Reason
	}
	s.soft = false // by order, of nobody
	g.sentences.put(s)
	change, rec, b := s.change(BanAdded), s.record(), s.ban()
	g.mu.Unlock()
	written := g.writer.put(rec)
	g.announce(k, change)
	g.changes.Unlock()
	if before == nil {
		g.stats.sentenced(k, manualRule, now.UnixMilli())
	}
	g.logBan(&b)
	g.queues.sentenced()
	return Ordered{b, before}, written
}

// takeOver makes a sentence that is in force the operator's. Its beginning and
// what led to it stay, and that it was deserved: a repeat lasts longer still.
func (s *sentence) takeOver(r *BanRequest, length time.Duration, now int64) {
	s.rule = manualRule
	if s.evidence == "" {
		s.score, s.limit = 0, "" // they would explain nothing
	}
	if r.Reason != "" {
		s.reason = r.Reason
	}
	old := *s
	s.term(now, length)
	if r.For == 0 && s.until < old.until {
		s.until, s.forget = old.until, old.forget
	}
}

// MinBanBits is the width of the widest network that can be banned: what is
// wider is a slip, or a list that somebody has tampered with.
const MinBanBits = 8

// bannable gives the network that a request names, if it may be banned.
func (g *Guard) bannable(r *BanRequest, now time.Time) (netip.Prefix, error) {
	p, err := ParsePrefix(r.Target)
	switch {
	case err != nil:
		return p, err
	case r.For < 0:
		return p, fmt.Errorf("%s: a length of time is not negative", r.Target)
	case len(r.Reason) > maxReason || len(r.Scope) > MaxName:
		return p, fmt.Errorf("%s: a reason has at most %d bytes, and a scope %d", r.Target, maxReason, MaxName)
	case p.Bits() < MinBanBits:
		return p, fmt.Errorf("%s: that would ban a large part of the Internet; the widest network is a /%d", r.Target, MinBanBits)
	case p.IsSingleIP() && g.index.allowed(p.Addr(), now.UnixMilli()):
		return p, fmt.Errorf("%s is allowed, and allow beats ban; see \"allow\" for by what, and \"disallow\"", r.Target)
	}
	return p, nil
}

// banKey gives the key that a ban of a network goes by. Bits beyond what
// counts as one address are part of that address.
func banKey(set *settings, p netip.Prefix) key {
	if own := set.widths.address(p.Addr()); covers(own, p) {
		return key{kind: byAddress, prefix: own}
	}
	return key{kind: byNetwork, prefix: p}
}
