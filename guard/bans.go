package guard

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"mailreeve/protocol"
)

// sentence carries out what reached limits.
func (g *Guard) sentence(set *settings, o *Origin, totals []total, now time.Time) {
	for i := range totals {
		t := &totals[i]
		if !t.tripped {
			continue
		}
		r := set.rules.named(t.rule)
		if r == nil {
			continue
		}
		if r.points[protocol.AuthFailure] > 0 && r.consequence != delayed && g.suspended(o, t, now.UnixMilli()) {
			continue
		}
		g.pronounce(set, o, t, now)
	}
}

// pronounce puts a rule's consequence into force: in memory at once, then
// whoever subscribed is told, then the points that led to it become its
// evidence, and it is made durable.
func (g *Guard) pronounce(set *settings, o *Origin, t *total, now time.Time) {
	r := set.rules.named(t.rule)
	only := func(rule string) bool { return rule == t.rule }
	if r == nil || g.exempt(t.key, now) {
		g.ledger.clear(t.key, forever, only)
		return
	}
	k := sentenceKey{r.consequence, t.key, r.scopeOf(o), r.dryRun}

	line := g.enforce(k, r, t, now)
	// The points are cleared only now: in between the limit held. No lock is
	// held meanwhile, for in a fleet this asks the store.
	points := g.ledger.clear(t.key, forever, only)
	if line == nil {
		return
	}
	written := g.prove(k, points, line, now)
	g.stats.sentenced(k, r.name, now.UnixMilli())
	g.logBan(line)
	g.queues.sentenced()
	g.widen(set, k, now)
	awaitDurable(written)
}

// enforce puts a sentence into force and tells whoever subscribed. It gives the
// ban, or nil if one is in force already.
func (g *Guard) enforce(k sentenceKey, r *rule, t *total, now time.Time) *Ban {
	g.changes.Lock()
	defer g.changes.Unlock()
	g.mu.Lock()
	s := g.sentences.pronounce(k, r, t, now.UnixMilli(), rand.Float64())
	if s == nil {
		g.mu.Unlock()
		return nil
	}
	s.soft = k.kind == banned && k.key.kind == byAddress && g.places.knownAddress(k.key.prefix, now.UnixMilli())
	g.sentences.put(s)
	change, line := s.change(BanAdded), s.ban()
	g.mu.Unlock()
	g.announce(k, change)
	return &line
}

// prove gives a sentence the points that led to it for its evidence, and writes
// it. Who has lifted it or made it their own since has written that, and nothing
// is left to prove.
func (g *Guard) prove(k sentenceKey, points []cleared, line *Ban, now time.Time) <-chan struct{} {
	var marks []mark
	var sum milli
	for _, c := range points {
		marks, sum = append(marks, c.marks...), sum+c.sum
	}
	// The ban and the counter that it came from go to disk together: a counter
	// left at its limit would ban again after the ban's end.
	records := []record{g.memory.record(k.key, now.UnixMilli())}
	g.changes.Lock()
	defer g.changes.Unlock()
	g.mu.Lock()
	if s := g.sentences.get(k); s != nil && s.since == line.Since.UnixMilli() && s.rule == line.Rule {
		s.reason, s.evidence, s.score = line.Reason, evidence(marks), sum
		g.sentences.put(s)
		line.Score = max(line.Score, sum.float())
		records = append(records, s.record())
	}
	g.mu.Unlock()
	return g.writer.put(records...)
}

// awaitDurable waits for a ban to be on disk, but no longer than durableWait:
// it is in force anyway.
func awaitDurable(written <-chan struct{}) {
	timer := time.NewTimer(durableWait)
	defer timer.Stop()
	select {
	case <-written:
	case <-timer.C:
	}
}

// exempt tells whether a key's addresses may not be banned: all of them are
// allowed. If only some are, those are let in whatever bans there are.
func (g *Guard) exempt(k key, now time.Time) bool {
	if k.kind != byAddress && k.kind != byNetwork {
		return false
	}
	return g.index.allowedAll(k.prefix, now.UnixMilli())
}

// change gives the change that a ban makes.
func (s *sentence) change(kind ChangeKind) Change {
	c := Change{Kind: kind, Prefix: s.key.prefix, Scope: s.scope, Rule: s.rule, Soft: s.soft}
	if s.until != forever {
		c.Until = time.UnixMilli(s.until)
	}
	return c
}

// announce tells subscribers of a real ban's change. The caller holds changes,
// so that they hear of changes in the order in which they were made.
func (g *Guard) announce(k sentenceKey, c Change) {
	if k.kind != banned || k.simulated {
		return
	}
	for _, f := range g.subscribers {
		f(c)
	}
}

// logBan writes the one line of a ban.
func (g *Guard) logBan(b *Ban) {
	until := "forever"
	if !b.Forever() {
		until = b.Until.UTC().Format(time.RFC3339)
	}
	g.log.Info(b.Kind, said("target", b.Target, "scope", b.Scope, "rule", b.Rule, "score", b.Score,
		"limit", b.Limit, "until", until, "count", b.Count, "soft", b.Soft, "simulated", b.Simulated, "reason", b.Reason)...)
	g.tellBan("", b)
}

// logUnban writes the one line of a ban's end.
func (g *Guard) logUnban(b *Ban, why string) {
	g.log.Info("un"+b.Kind, said("target", b.Target, "scope", b.Scope, "rule", b.Rule, "simulated", b.Simulated, "why", why)...)
	g.tellBan("un", b)
}

// said leaves out of a log line's attributes what says nothing: a text that is
// empty, a number that is 0, what is not so.
func said(pairs ...any) []any {
	out := pairs[:0]
	for i := 0; i < len(pairs); i += 2 {
		if v := pairs[i+1]; v != "" && v != 0.0 && v != false {
			out = append(out, pairs[i], v)
		}
	}
	return out
}

// widen bans an IPv6 /48 in which widen-after addresses are banned.
func (g *Guard) widen(set *settings, k sentenceKey, now time.Time) {
	if set.cfg.WidenAfter == 0 || k.kind != banned || k.simulated || k.key.kind != byAddress || k.key.prefix.Addr().Is4() {
		return
	}
	net := network(k.key.prefix.Addr())
	g.mu.Lock()
	n := g.sentences.crowded(net.Addr(), k.scope)
	g.mu.Unlock()
	if n < set.cfg.WidenAfter {
		return
	}
	wide := &rule{name: "widen", consequence: banned, scope: k.scope, first: set.cfg.BanTime.Std(), max: set.cfg.MaxBanTime.Std(), growth: 2}
	_, written := g.order(sentenceKey{banned, key{kind: byNetwork, prefix: net}, k.scope, false}, wide, now,
		"so many of its networks were banned")
	awaitDurable(written)
}

// order puts a ban into force that no points led to. The channel is closed
// when it is durable.
func (g *Guard) order(k sentenceKey, r *rule, now time.Time, reason string) (Ban, <-chan struct{}) {
	g.changes.Lock()
	g.mu.Lock()
	s := g.sentences.pronounce(k, r, &total{}, now.UnixMilli(), rand.Float64())
	if s == nil {
		s = g.sentences.get(k)
		b := s.ban()
		g.mu.Unlock()
		g.changes.Unlock()
		return b, g.writer.put()
	}
	s.reason = reason
	g.sentences.put(s)
	change, rec, b := s.change(BanAdded), s.record(), s.ban()
	g.mu.Unlock()
	written := g.writer.put(rec)
	g.announce(k, change)
	g.changes.Unlock()
	g.stats.sentenced(k, r.name, now.UnixMilli())
	g.logBan(&b)
	g.queues.sentenced()
	return b, written
}

// expire announces bans that have ended, and forgets history that is over.
//
// Many may end at one moment, those of an import for instance. New bans must
// not wait for all of them.
func (g *Guard) expire(now int64) {
	for g.expireSome(now) {
	}
}

// expireSome sees to some of what is due, and tells whether there was any.
func (g *Guard) expireSome(now int64) bool {
	g.changes.Lock()
	defer g.changes.Unlock()
	var ended []sentence
	var forgotten []record
	g.mu.Lock()
	list := g.sentences.next(now)
	for i := range list {
		s := &list[i]
		if !s.active {
			g.sentences.drop(s.sentenceKey)
			forgotten = append(forgotten, record{bucket: bucketBans, key: s.storeKey()})
			continue
		}
		s.active = false
		g.sentences.put(s) // its next change is another
		ended = append(ended, *s)
	}
	g.mu.Unlock()
	g.over(forgotten...)
	for i := range ended {
		s, line := &ended[i], ended[i].ban()
		g.stats.falseBans.ended(line.Prefix, now)
		g.announce(s.sentenceKey, s.change(BanRemoved))
		g.logUnban(&line, "ended")
	}
	return len(list) > 0
}

// over takes away the records of what is over. A shared store forgets by itself.
func (g *Guard) over(records ...record) {
	if len(records) == 0 {
		return
	}
	if g.fleet != nil {
		records = g.fleet.share.over(records)
	}
	g.writer.keep(records...)
}

// bannedAnywhere tells whether an address is banned in any scope.
func (g *Guard) bannedAnywhere(p netip.Prefix, now int64) bool {
	return g.index.lookup(p.Addr(), now) != 0
}
