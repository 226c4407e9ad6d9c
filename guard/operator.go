package guard

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// covers tells whether one network holds all of another.
func covers(wide, narrow netip.Prefix) bool {
	return narrow.IsValid() && wide.Bits() <= narrow.Bits() && wide.Contains(narrow.Addr())
}

// lift removes the sentences that choose calls its argument with, in force or
// ended. It tells what it removed.
func (g *Guard) lift(choose func(lift func(*sentence))) Removed {
	var out Removed
	var records []record
	var changes []Change
	g.changes.Lock()
	g.mu.Lock()
	choose(func(s *sentence) {
		if s.active {
			out.Bans = append(out.Bans, s.ban())
			if s.kind == banned && !s.simulated {
				changes = append(changes, s.change(BanRemoved))
			}
		} else {
			out.History++
		}
		g.sentences.drop(s.sentenceKey)
		records = append(records, record{bucket: bucketBans, key: s.storeKey()})
	})
	g.mu.Unlock()
	written := g.writer.put(records...)
	for _, c := range changes {
		for _, f := range g.subscribers {
			f(c)
		}
	}
	g.changes.Unlock()
	for _, b := range out.Bans {
		g.logUnban(&b, "command")
	}
	if len(records) > 0 {
		awaitDurable(written)
	}
	sortBans(out.Bans, "")
	return out
}

// Unban forgives: bans, points and history in one step, across restarts.
func (g *Guard) Unban(r UnbanRequest) (Removed, error) {
	set, now := g.set.Load(), g.clock.now()
	matches, rule, p, login := set.forgiven(r)
	if matches == nil {
		return Removed{}, fmt.Errorf("%q is no address, network or login", r.Target)
	}
	var named []key
	var noted <-chan struct{}
	if g.fleet != nil {
		// Other nodes may have counted what this one has not.
		named = set.named(p, login)
		noted = g.fleet.share.forgive(r)
	}
	out := g.lift(func(lift func(*sentence)) {
		g.concerning(p, r.Target == "all", func(s *sentence) {
			if matches(s.key) && rule(s.rule) {
				lift(s)
			}
		})
	})
	out.Points, out.Counters = g.forget(matches, rule, forever, named...)
	if rule("login") {
		g.ledger.pardon(forever, matches, login)
	}
	g.guesses.forget(p, r.Target == "all" || login != "")
	g.flush()
	g.queues.sentenced()
	if p.IsValid() {
		out.Remaining = g.wider(p, now)
	}
	if noted != nil {
		awaitDurable(noted)
	}
	return out, nil
}

// named gives the keys of what an operator names.
func (s *settings) named(p netip.Prefix, login string) []key {
	if p.IsValid() {
		return []key{banKey(s, p)}
	}
	return []key{{kind: byLogin, login: login}}
}

// concerning calls f with every sentence that may concern a network, or a login
// if there is none, or anybody. The caller holds mu, which is given up now and
// then.
func (g *Guard) concerning(p netip.Prefix, anybody bool, f func(*sentence)) {
	switch {
	case anybody:
		g.sentences.walk(&g.mu, f)
	case p.IsValid():
		g.sentences.around(&g.mu, p, f)
	default:
		g.sentences.walkLogins(&g.mu, f)
	}
}

// wider lists the bans and refusals that still cover a network.
func (g *Guard) wider(p netip.Prefix, now time.Time) []Ban {
	var found []sentence
	var blocked []Ban
	g.mu.Lock()
	g.concerning(p, false, func(s *sentence) {
		if (s.kind == banned || s.kind == refused) && s.active && s.until > now.UnixMilli() && s.key.prefix != p && covers(s.key.prefix, p) {
			found = append(found, *s)
		}
	})
	for b := range g.blocked {
		if covers(b, p) {
			blocked = append(blocked, blockedBan(b))
		}
	}
	g.mu.Unlock()
	out := append(g.explain(found, false), blocked...)
	sortBans(out, "")
	return out
}

// blockedBan is what the configuration blocks, as operators see it.
func blockedBan(p netip.Prefix) Ban {
	return Ban{Target: printPrefix(p), Kind: banned.String(), Prefix: p, Scope: "all", Rule: blockedRule}
}

// Logins lists the logins that are guarded.
func (g *Guard) Logins() []GuardedLogin {
	var out []GuardedLogin
	for _, b := range g.Bans(BanFilter{Kind: "guard", Sort: "target"}) {
		if b.Prefix.IsValid() {
			continue // a familiar place's own budget
		}
		out = append(out, GuardedLogin{
			Login: b.Login, Since: b.Since, Until: b.Until, Count: b.Count, Simulated: b.Simulated,
			Places: g.places.of(b.Login),
		})
	}
	return out
}

// Why explains where an address, network or login stands.
func (g *Guard) Why(target string) (Why, error) {
	set, now := g.set.Load(), g.clock.now()
	p, login := set.logins.parseTarget(target)
	if !p.IsValid() && login == "" {
		return Why{}, fmt.Errorf("%q is no address, network or login", target)
	}
	w := Why{Target: target, Bans: []Ban{}, Scores: []Score{}}
	var keys []key
	about := func(k key) bool { return k.login == login }
	own := key{}
	if p.IsValid() {
		own = banKey(set, p)
		keys = []key{own, {kind: byNetwork, prefix: network(p.Addr())}}
		about = func(k key) bool {
			return k.kind != byPair && k.prefix.IsValid() && (covers(k.prefix, own.prefix) || covers(own.prefix, k.prefix))
		}
	} else {
		w.Places = g.places.of(login)
	}
	g.memory.each(func(k key) bool {
		if login != "" && k.login == login {
			keys = append(keys, k)
		}
		return true
	})
	var inForce, past []sentence
	var blocked []Ban
	g.mu.Lock()
	g.concerning(own.prefix, false, func(s *sentence) {
		switch {
		case !about(s.key):
		case s.active && s.until > now.UnixMilli():
			inForce = append(inForce, *s)
		case s.forget > now.UnixMilli():
			past = append(past, *s)
		}
	})
	for b := range g.blocked {
		if p.IsValid() && covers(b, p) {
			blocked = append(blocked, blockedBan(b))
		}
	}
	for _, a := range g.entries() {
		if login != "" && a.Login == login || p.IsValid() && a.Prefix.IsValid() && covers(a.Prefix, p) {
			w.Allowed = append(w.Allowed, a)
		}
	}
	g.mu.Unlock()
	w.Bans = append(append(w.Bans, g.explain(inForce, true)...), blocked...)
	w.Past = g.explain(past, true)
	seen := make(map[key]bool)
	for _, k := range keys {
		if !seen[k] {
			seen[k] = true
			w.Scores = append(w.Scores, g.scores(set, k, now)...)
		}
	}
	if g.fleet != nil {
		g.fleet.evidence(w.Bans)
	}
	sortBans(w.Bans, "")
	sortBans(w.Past, "since")
	return w, nil
}

// scores gives a key's counters with what adds up to them.
func (g *Guard) scores(set *settings, k key, now time.Time) []Score {
	var out []Score
	for _, r := range g.ledger.read(now, k, set.rules.terms) {
		s := Score{Rule: r.rule, Key: r.key.String(), Points: r.sum.float(), Pending: r.pending.float(), Events: []Scored{}}
		if rule := set.rules.named(r.rule); rule != nil {
			s.Limit = rule.written
			for i := range r.marks {
				e := scored(&r.marks[i])
				e.Expires = e.Time.Add(rule.period)
				s.Events = append(s.Events, e)
			}
		}
		out = append(out, s)
	}
	return out
}

// Top lists the n keys of each kind with the most points.
func (g *Guard) Top(n int) Top {
	set, now := g.set.Load(), g.clock.now()
	var by [4][]Score
	g.memory.each(func(k key) bool {
		for _, s := range g.scores(set, k, now) {
			s.Events = nil
			by[k.kind] = append(by[k.kind], s)
		}
		return true
	})
	for i := range by {
		slices.SortFunc(by[i], func(a, b Score) int {
			return cmp.Or(cmp.Compare(b.Points, a.Points), strings.Compare(a.Key, b.Key), strings.Compare(a.Rule, b.Rule))
		})
		by[i] = by[i][:min(n, len(by[i]))]
	}
	return Top{Addresses: by[byAddress], Networks: by[byNetwork], Logins: by[byLogin]}
}

// Status gives the state in a few numbers.
func (g *Guard) Status() Status {
	set := g.set.Load()
	s := Status{ByRule: make(map[string]int), DryRun: set.cfg.DryRun, BansTotal: g.stats.bansTotal(), Waiting: g.queues.waiting()}
	g.mu.Lock()
	for l, n := range g.sentences.counts() {
		switch {
		case l.simulated:
			s.Simulated += n
		case l.kind == guarded:
			s.Guarded += n
		case l.kind == banned:
			s.Bans += n
			s.ByRule[l.rule] += n
		}
	}
	records := g.sentences.len()
	g.mu.Unlock()
	counts, evicted := g.memory.sizes()
	s.Addresses, s.Networks, s.Logins = counts[byAddress], counts[byNetwork], counts[byLogin]
	for _, n := range evicted {
		s.Evictions += n
	}
	s.Suspended = g.trouble.suspendedNames()
	s.LostSource = g.lost.source()
	hits, total := g.stats.falseBans.read()
	s.FalseBans = hits
	if total > 0 {
		s.FalseBanRate = float64(hits) / float64(total)
	}
	s.Store = g.storeStatus(records)
	return s
}

func (g *Guard) storeStatus(records int) StoreStatus {
	pending, err := g.writer.status()
	s := StoreStatus{Kind: cmp.Or(g.storeConfig.Kind, "memory"), Path: g.storeConfig.Path, Healthy: err == nil,
		Recovered: g.recovered, Records: records, Pending: pending}
	if err != nil {
		s.Error = err.Error()
	}
	if g.fleet != nil {
		g.fleet.status(&s)
	}
	return s
}
