package guard

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"mailreeve/protocol"
)

// trouble watches the upstreams. While one is in trouble, failures behind it
// are counted and bound what is forwarded, but ban nobody: a broken password
// database refuses everybody. The signs are failed dials, and familiar pairs
// that fail en masse; an attacker has neither in his hands.
type trouble struct {
	mu        sync.Mutex
	upstreams map[string]*upstream
}

type upstream struct {
	failedDials int
	// pairs are the latest outcomes of familiar pairs, one for each login and
	// network.
	pairs map[pairID]pairOutcome
	// failing is how many of pairs failed; looked is when they were last gone
	// through, with how many failing and what came of it.
	failing, lookedFailing int
	looked                 int64
	pairsSick              bool
	// answers are the last two addresses that had a definite answer.
	answers [2]answer

	suspended   bool
	since       int64
	saidPenalty bool
	deferred    []deferral
}

type pairID struct {
	login string
	net   netip.Prefix
}

type pairOutcome struct {
	at int64
	ok bool
}

type answer struct {
	addr netip.Prefix
	at   int64
}

// A deferral is a ban that fell while its upstream was in trouble.
type deferral struct {
	origin Origin
	total  total
}

func newTrouble() *trouble { return &trouble{upstreams: make(map[string]*upstream)} }

func (tr *trouble) atLocked(name string) *upstream {
	u := tr.upstreams[name]
	if u == nil {
		u = &upstream{pairs: make(map[pairID]pairOutcome)}
		tr.upstreams[name] = u
	}
	return u
}

// answered notes a definite answer of the server.
func (tr *trouble) answered(t *try, ok bool, now int64) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	u := tr.atLocked(t.o.Upstream)
	if u.answers[0].addr != t.addr {
		u.answers[1] = u.answers[0]
	}
	u.answers[0] = answer{t.addr, now}
	if t.strange && !ok {
		return
	}
	for _, login := range t.logins {
		if len(u.pairs) >= maxGuesses {
			clear(u.pairs)
			u.failing = 0
		}
		id := pairID{account(login), t.net}
		u.forget(id)
		u.pairs[id] = pairOutcome{now, ok}
		if !ok {
			u.failing++
		}
	}
}

// account is the account that a login most likely belongs to. Whatever
// plus-addressing says here, the server may take alice+anything for alice, and
// then one account has as many familiar logins as its owner likes.
func account(login string) string {
	local, domain, _ := strings.Cut(login, "@")
	base, _, _ := strings.Cut(local, "+")
	return base + "@" + domain
}

func (u *upstream) forget(id pairID) {
	if o, known := u.pairs[id]; known && !o.ok {
		u.failing--
	}
	delete(u.pairs, id)
}

// answeredOther tells whether another address had a definite answer lately.
func (tr *trouble) answeredOther(name string, addr netip.Prefix, now int64) bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, a := range tr.atLocked(name).answers {
		if a.addr.IsValid() && a.addr != addr && now-a.at < definiteWithin.Milliseconds() {
			return true
		}
	}
	return false
}

// dialled notes how a dial went.
func (tr *trouble) dialled(name string, ok bool) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	u := tr.atLocked(name)
	if ok {
		u.failedDials = 0
	} else {
		u.failedDials++
	}
}

// sick tells whether the signs are there, forgetting old ones.
func (u *upstream) sick(now int64) bool {
	if u.failedDials >= troubleDials {
		return true
	}
	// Every dial asks. The pairs are gone through when another one fails, and
	// else once a second, not for each connection.
	if u.failing == u.lookedFailing && now-u.looked < time.Second.Milliseconds() {
		return u.pairsSick
	}
	u.pairsSick = u.failing >= troubleLogins && u.sickPairs(now)
	u.looked, u.lookedFailing = now, u.failing
	return u.pairsSick
}

// sickPairs tells whether familiar pairs fail en masse.
func (u *upstream) sickPairs(now int64) bool {
	failed, all := 0, 0
	logins, nets := map[string]bool{}, map[netip.Prefix]bool{}
	for id, o := range u.pairs {
		if now-o.at > troubleWindow.Milliseconds() {
			u.forget(id)
			continue
		}
		if all++; !o.ok {
			failed++
			logins[id.login], nets[id.net] = true, true
		}
	}
	return len(logins) >= troubleLogins && len(nets) >= troubleNetworks &&
		float64(failed) >= troubleShare*float64(all)
}

// review enters or leaves the suspension of an upstream.
func (g *Guard) review(name string, now int64) (suspended bool) {
	g.trouble.mu.Lock()
	u := g.trouble.atLocked(name)
	sick, was := u.sick(now), u.suspended
	u.suspended = sick
	var deferred []deferral
	var lasted time.Duration
	switch {
	case sick && !was:
		u.since = now
	case was && !sick:
		deferred, u.deferred = u.deferred, nil
		lasted = time.Duration(now-u.since) * time.Millisecond
	}
	dials := u.failedDials
	g.trouble.mu.Unlock()

	switch {
	case sick && !was:
		g.log.Warn("upstream in trouble: bans are deferred until it is well", "upstream", name, "failed_dials", dials)
	case was && !sick:
		g.log.Info("upstream is well again: bans are in force again", "upstream", name,
			"after", lasted.Round(time.Second).String(), "deferred", len(deferred))
		g.resume(deferred, now)
	}
	return sick
}

// resume decides on the bans that were deferred. Who had logged in from that
// address was most likely a victim of the trouble: his points are cleared. A
// stranger's ban falls now.
func (g *Guard) resume(deferred []deferral, now int64) {
	set := g.set.Load()
	for _, d := range deferred {
		if d.total.key.kind == byAddress && !g.places.knownAddress(d.total.key.prefix, now) {
			g.pronounce(set, &d.origin, &d.total, time.UnixMilli(now))
			continue
		}
		g.ledger.clear(d.total.key, forever, func(rule string) bool { return rule == d.total.rule })
	}
	g.queues.sentenced()
}

// suspended tells whether bans for failed logins are deferred there, and if
// so keeps the ban for later.
func (g *Guard) suspended(o *Origin, t *total, now int64) bool {
	if !g.review(o.Upstream, now) {
		return false
	}
	g.trouble.mu.Lock()
	defer g.trouble.mu.Unlock()
	u := g.trouble.atLocked(o.Upstream)
	if len(u.deferred) < maxGuesses {
		u.deferred = append(u.deferred, deferral{*o, *t})
	}
	return true
}

// ReportDial tells whether an upstream could be dialled. Failures in a row
// defer bans for what happens behind it.
func (g *Guard) ReportDial(upstream string, ok bool) {
	g.trouble.dialled(upstream, ok)
	g.review(upstream, g.clock.now().UnixMilli())
}

// penaltyIsFailure tells whether Postfix's "Connection lost to authentication
// server" was a wrong password that ran into Dovecot's penalty, and not an
// outage: the answer was slow, this address has failed before, others get
// definite answers, and the login is not at home there.
func (g *Guard) penaltyIsFailure(t *try, took time.Duration, now time.Time) bool {
	if took < penaltySlow || !t.strange || !g.trouble.answeredOther(t.o.Upstream, t.addr, now.UnixMilli()) {
		return false
	}
	failedBefore := false
	for _, w := range g.ledger.read(now, key{kind: byAddress, prefix: t.addr}, g.set.Load().rules.terms) {
		for _, m := range w.marks {
			failedBefore = failedBefore || m.trace != nil && m.outcome == protocol.Failure.String()
		}
	}
	if !failedBefore {
		return false
	}
	g.trouble.mu.Lock()
	u := g.trouble.atLocked(t.o.Upstream)
	said := u.saidPenalty
	u.saidPenalty = true
	g.trouble.mu.Unlock()
	if !said {
		g.log.Warn("Dovecot's penalty delays its answers until Postfix gives up; switch it off: "+
			"service anvil { unix_listener anvil-auth-penalty { mode = 0 } }", "upstream", t.o.Upstream)
	}
	return true
}

// suspendedNames lists the upstreams in trouble.
func (tr *trouble) suspendedNames() []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var out []string
	for name, u := range tr.upstreams {
		if u.suspended {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// reviewAll reviews every upstream, for trouble that ends by itself.
func (g *Guard) reviewAll(now int64) {
	g.trouble.mu.Lock()
	names := slices.Collect(maps.Keys(g.trouble.upstreams))
	g.trouble.mu.Unlock()
	for _, name := range names {
		g.review(name, now)
	}
}
