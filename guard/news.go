package guard

import (
	"slices"
	"sync"
	"sync/atomic"

	"mailreeve/protocol"
)

// Kinds that only those who follow events see, beside the kinds of the rules:
// what came of a credential other than a failure. Bans and their ends go by
// "ban", "guard", "refuse", "delay" and the same with "un" before it.
const (
	// AuthSuccess: the server let a login in.
	AuthSuccess protocol.Kind = "auth-success"
	// AuthUnjudged: the server answered neither yes nor no.
	AuthUnjudged protocol.Kind = "auth-unjudged"
	// AuthRefused: a credential was refused before the server; its Verdict and
	// Rule say how and why.
	AuthRefused protocol.Kind = "auth-refused"
)

// News is an event as those who follow are told of it: what scores and what
// does not, and every ban.
type News struct {
	Event
	// Also are the further logins of a credential that has several.
	Also []string `json:"also,omitempty"`
	// LoggedIn tells that the connection was logged in, so that the event
	// scored nothing.
	LoggedIn bool `json:"logged_in,omitempty"`
	// Elsewhere tells that another node of the fleet decided it.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// Ban is set where a ban, or the guarding of a login, began or ended.
	Ban *Ban `json:"ban,omitempty"`
}

// watchers are who follows events.
type watchers struct {
	any  atomic.Int32
	mu   sync.Mutex
	list []*watcher
	news News // of an event that is being told
}

type watcher struct{ f func(*News) }

// Follow has f called with every event, for "events --follow" and the event
// log. f must be quick, must not call the guard, and must not keep what it is
// given: that is used again. stop ends it.
func (g *Guard) Follow(f func(*News)) (stop func()) {
	w := &watcher{f}
	g.watch.mu.Lock()
	defer g.watch.mu.Unlock()
	g.watch.list = append(g.watch.list, w)
	g.watch.any.Add(1)
	return sync.OnceFunc(func() {
		g.watch.mu.Lock()
		defer g.watch.mu.Unlock()
		g.watch.list = slices.DeleteFunc(g.watch.list, func(o *watcher) bool { return o == w })
		g.watch.any.Add(-1)
	})
}

// tellAttempt tells those who follow what became of a credential. outcome is
// the server's answer, or "refused".
func (g *Guard) tellAttempt(t *try, ev *Event, outcome string, d Decision) {
	if g.watch.any.Load() == 0 {
		return
	}
	n := &News{Event: *ev}
	n.Outcome = outcome
	switch outcome {
	case protocol.Success.String():
		// The right password is nothing to keep sixteen bits of.
		n.Kind, n.Guess = AuthSuccess, ""
	case protocol.Failure.String():
	case "refused":
		n.Kind = AuthRefused
	default:
		n.Kind = AuthUnjudged
	}
	if len(t.logins) > 1 {
		n.Also = t.logins[1:]
	}
	n.decided(d)
	g.publish(n)
}

// tellEvent tells those who follow of any other event. ev is shared with the
// evidence and is not changed. Each recipient of each message is one.
func (g *Guard) tellEvent(ev *Event, loggedIn bool, d Decision) {
	if g.watch.any.Load() == 0 {
		return
	}
	g.watch.mu.Lock()
	defer g.watch.mu.Unlock()
	n := &g.watch.news
	*n = News{Event: *ev, LoggedIn: loggedIn}
	n.decided(d)
	g.publishLocked(n)
}

func (n *News) decided(d Decision) {
	n.Verdict, n.Rule = d.Verdict.String(), d.Rule
	if d.Simulated != "" && n.Rule == "" {
		n.Rule = d.Simulated
	}
}

// tellBan tells those who follow that a ban began, or with "un" before its
// kind that it ended.
func (g *Guard) tellBan(un string, b *Ban) {
	if g.watch.any.Load() == 0 {
		return
	}
	g.publish(g.banNews(un, *b))
}

func (g *Guard) banNews(un string, b Ban) *News {
	return &News{Ban: &b, Event: Event{
		Time: g.clock.now(), Kind: protocol.Kind(un + b.Kind), Addr: b.Prefix.Addr(), Login: b.Login,
		Scope: b.Scope, Rule: b.Rule,
	}}
}

// tellHeard tells those who follow, and the log if it wants to know much, what
// another node has decided.
func (g *Guard) tellHeard(t *heardChange) {
	un := ""
	if t.change.Kind == BanRemoved {
		un = "un"
	}
	g.log.Debug("heard: "+un+t.ban.Kind, "target", t.ban.Target, "scope", t.ban.Scope, "rule", t.ban.Rule)
	if g.watch.any.Load() == 0 {
		return
	}
	n := g.banNews(un, t.ban)
	n.Elsewhere = true
	g.publish(n)
}

func (g *Guard) publish(n *News) {
	g.watch.mu.Lock()
	defer g.watch.mu.Unlock()
	g.publishLocked(n)
}

func (g *Guard) publishLocked(n *News) {
	for _, w := range g.watch.list {
		w.f(n)
	}
}
