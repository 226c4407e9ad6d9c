package guard

import (
	"net/netip"
	"slices"
	"time"
)

// A heardSentence is a sentence that another node has pronounced or lifted.
type heardSentence struct {
	s       *sentence
	version stamp // in the fleet's time
	// forgotten: it is gone with its history.
	forgotten bool
}

// sameSentence is by how much the beginnings of one sentence may differ after
// they went from clock to clock.
const sameSentence = 2 * steadyWithin

// hear takes over sentences of other nodes, as pronounce and lift would have:
// in memory, then whoever subscribed is told, then they are kept for the next
// start. What is known already changes nothing.
//
// In bulk they are many, of a reading of all keys: nobody is told who follows
// events, and they are kept by who reads, see keepRead.
func (g *Guard) hear(list []*heardSentence, reading uint16, bulk bool) {
	now := g.clock.now().UnixMilli()
	share := g.fleet.share
	var told []heardChange
	var records []record
	var lost []missed
	g.changes.Lock()
	g.mu.Lock()
	for _, h := range list {
		k := h.s.sentenceKey
		have := g.sentences.get(k)
		switch share.versions.hear(h, have, reading, bulk) {
		case versionSame:
			continue
		case versionOld:
			if bulk && have == nil && !h.forgotten {
				// The store has lost that it was taken back.
				lost = append(lost, share.missing(record{bucket: bucketBans, key: k.storeKey()}))
			}
			continue
		}
		records = append(records, share.outbox.drop(record{bucket: bucketBans, key: k.storeKey()})...)
		if have != nil {
			told = ended(have, told)
		}
		switch {
		case h.forgotten:
			if have != nil {
				g.sentences.drop(k)
				records = append(records, record{bucket: bucketBans, key: k.storeKey()})
			}
			continue
		case h.s.forget <= now:
			if have != nil {
				have.active = false
				g.sentences.put(have)
			}
			continue
		}
		if h.s.until <= now {
			h.s.active = false
		}
		g.sentences.put(h.s)
		if h.s.active {
			told = append(told, heardChange{h.s, h.s.change(BanAdded), Ban{}})
		}
		if !bulk || h.s.reason != "" {
			records = append(records, h.s.record()) // memory does not keep the reason
		}
	}
	if !bulk {
		for i := range told {
			told[i].ban = told[i].s.ban()
		}
	}
	g.mu.Unlock()
	for i := range told {
		g.announce(told[i].s.sentenceKey, told[i].change)
	}
	g.changes.Unlock()
	if len(records) > 0 {
		g.writer.keep(records...)
	}
	share.offerMissed(lost)
	for i := range told {
		t := &told[i]
		if t.change.Kind == BanAdded {
			g.memory.clear(t.s.key, forever, func(rule string) bool { return rule == t.change.Rule })
		}
		if !bulk {
			g.tellHeard(t)
		}
	}
	if len(told) > 0 {
		g.queues.sentenced()
	}
}

// hear compares a sentence to what is known of it, have, and takes note of it
// if it says more.
func (v *versions) hear(h *heardSentence, have *sentence, reading uint16, bulk bool) versionStanding {
	id := versionID(v, h.s.sentenceKey)
	standing := v.compare(id, h.version, reading)
	if standing == versionFirst && have != nil {
		if standing = v.compareSince(h, have); standing == versionSame {
			v.heard(id, h.version, reading, false)
		}
	}
	if standing == versionNew || standing == versionFirst {
		v.heard(id, h.version, reading, bulk && h.s.reason == "")
	}
	return standing
}

// compareSince compares by when sentences began: after a restart the version of
// what this node has is not known, but then the store has been told of it. What
// began when it did is the same, unless somebody has given it another end.
func (v *versions) compareSince(h *heardSentence, have *sentence) versionStanding {
	apart, since := h.s.since-have.since, v.fleet(stamp{at: have.since, own: true}).at
	switch {
	case h.forgotten || !h.s.active:
		if h.version.at < since-sameSentence {
			return versionOld
		}
	case -sameSentence <= apart && apart <= sameSentence:
		if end := h.s.until - have.until; h.s.rule == have.rule && -sameSentence <= end && end <= sameSentence {
			return versionSame
		}
	case h.version.at <= since:
		return versionOld
	}
	return versionNew
}

// A heardChange is a change that subscribers are to be told of.
type heardChange struct {
	s      *sentence // its key does not change
	change Change
	ban    Ban // not in bulk
}

// ended adds that a sentence is in force no more, for another takes its place or
// it is forgotten.
func ended(s *sentence, told []heardChange) []heardChange {
	if !s.active {
		return told
	}
	return append(told, heardChange{s, s.change(BanRemoved), Ban{}})
}

// forgive forgets counters that an operator has forgiven at a moment: at another
// node, or with own at this one before a restart.
func (g *Guard) forgive(r UnbanRequest, upto int64, own bool) {
	set := g.set.Load()
	matches, rule, p, login := set.forgiven(r)
	if matches == nil {
		return
	}
	// Who was told of it looks after what all nodes have in the store.
	var named []key
	pardoned := ""
	if own {
		named, pardoned = set.named(p, login), login
	}
	g.forget(matches, rule, upto, named...)
	if rule("login") {
		g.ledger.pardon(upto, matches, pardoned)
	}
	g.guesses.forget(p, r.Target == "all" || login != "")
	g.queues.sentenced()
}

// forget clears the counters up to a moment of the keys that match, and of those
// named.
func (g *Guard) forget(matches func(key) bool, rule func(string) bool, upto int64, named ...key) (points float64, counters int) {
	clearKey := func(k key) bool {
		if matches(k) {
			for _, c := range g.ledger.clear(k, upto, rule) {
				points += c.sum.float()
				counters++
			}
		}
		return true
	}
	g.memory.each(func(k key) bool {
		if i := slices.Index(named, k); i >= 0 {
			named = slices.Delete(slices.Clone(named), i, i+1)
		}
		return clearKey(k)
	})
	for _, k := range named {
		clearKey(k)
	}
	return points, counters
}

// forgiven reads what an operator wants forgiven; matches is nil if that makes
// no sense.
func (s *settings) forgiven(r UnbanRequest) (matches func(key) bool, rule func(string) bool, p netip.Prefix, login string) {
	p, login = s.logins.parseTarget(r.Target)
	all := r.Target == "all"
	if !all && !p.IsValid() && login == "" {
		return nil, nil, p, login
	}
	if p.IsValid() {
		p = banKey(s, p).prefix
	}
	matches = func(k key) bool {
		switch {
		case all:
			return true
		case p.IsValid():
			return covers(p, k.prefix)
		}
		return k.login == login
	}
	return matches, func(name string) bool { return r.Rule == "" || name == r.Rule }, p, login
}

// hearAllow takes over an allow entry, or that it is gone if a is nil, unless
// what is known of it is later.
func (g *Guard) hearAllow(k string, a *Allowed, version stamp, reading uint16, bulk bool) {
	share := g.fleet.share
	v, id := share.versions, versionID(share.versions, k)
	g.changes.Lock()
	defer g.changes.Unlock()
	_, known := g.allows[k] // it only changes while changes is held
	switch v.compare(id, version, reading) {
	case versionSame:
		return
	case versionOld:
		if bulk && !known && a != nil {
			share.offerMissed([]missed{share.missing(record{bucket: bucketAllow, key: k})})
		}
		return
	}
	v.heard(id, version, reading, false)
	g.writer.keep(share.outbox.drop(record{bucket: bucketAllow, key: k})...)
	switch {
	case a != nil && (a.Until.IsZero() || a.Until.After(g.clock.now())):
		g.reallowLocked(func() { g.allows[k] = *a })
		g.writer.keep(record{bucket: bucketAllow, key: k, value: encodeJSON(*a)})
	case known:
		g.reallowLocked(func() { delete(g.allows, k) })
		g.writer.keep(record{bucket: bucketAllow, key: k})
	}
}

// learn takes over a place where a login succeeded elsewhere. It gives the
// login's places, nil if that was no news.
func (p *places) learn(login string, pl place) []place {
	p.mu.Lock()
	known := slices.ContainsFunc(p.logins[login].places, func(have place) bool { return have.Addr == pl.Addr && have.Last >= pl.Last })
	_, dirty := p.dirty[login]
	p.mu.Unlock()
	if known {
		return nil
	}
	p.add(login, pl.Addr, pl.Last)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !dirty {
		delete(p.dirty, login) // nobody needs to be told
	}
	return slices.Clone(p.logins[login].places)
}

// each calls f with every login's places.
func (p *places) each(f func(login string, list []place)) {
	p.mu.Lock()
	all := make(map[string][]place, len(p.logins))
	for login, h := range p.logins {
		all[login] = slices.Clone(h.places)
	}
	p.mu.Unlock()
	for login, list := range all {
		f(login, list)
	}
}

// heads nudges the first of every queue to look again.
func (q *queues) heads() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, list := range q.byKey {
		list[0].nudge()
	}
}

// awaitOther waits a moment for a sentence that another node is pronouncing:
// it has settled the points that reached the limit, and its word is on the
// way. It tells whether the sentence has come.
func (f *fleet) awaitOther(k sentenceKey) bool {
	timer, tick := time.NewTimer(otherWait), time.NewTicker(2*time.Millisecond)
	defer timer.Stop()
	defer tick.Stop()
	for {
		f.g.mu.Lock()
		s := f.g.sentences.active(k, f.g.clock.now().UnixMilli())
		f.g.mu.Unlock()
		if s != nil {
			return true
		}
		select {
		case <-tick.C:
		case <-timer.C:
			return false
		}
	}
}

// otherWait is how long to wait for another node's word of a sentence.
const otherWait = 100 * time.Millisecond
