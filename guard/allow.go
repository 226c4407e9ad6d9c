package guard

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gaissmai/bart"
)

// Allow beats ban, at the moment of asking: an allowed address is let in
// whatever bans there are, and scores nothing against address or network. Its
// failures still count for the login.

// localPrefixes are always local.
func localPrefixes() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// allowLists are where allow entries come from. The caller serialises.
type allowLists struct {
	config []Allowed
	names  map[string][]netip.Addr
	// opened are logins open to strangers by command, and until when.
	opened map[string]int64
	// allows are the entries by command, by their key in the store.
	allows map[string]Allowed
}

// entries lists all allow entries.
func (a *allowLists) entries() []Allowed {
	out := slices.Clone(a.config)
	for name, addrs := range a.names {
		for _, addr := range addrs {
			addr = addr.Unmap().WithZone("")
			out = append(out, Allowed{Prefix: netip.PrefixFrom(addr, addr.BitLen()), Source: "name", Name: name})
		}
	}
	for _, e := range a.allows {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Allowed) int {
		if c := a.Prefix.Compare(b.Prefix); c != 0 {
			return c
		}
		return strings.Compare(a.Source+a.Login, b.Source+b.Login)
	})
	return out
}

// configured gives the allow entries of the configuration.
func configured(cfg *Config, opt *Options) []Allowed {
	var out []Allowed
	for _, s := range cfg.AllowedIP {
		if p, err := ParsePrefix(s); err == nil {
			out = append(out, Allowed{Prefix: p, Source: "config"})
		}
	}
	if cfg.ExemptLocal {
		for _, p := range append(localPrefixes(), opt.Local...) {
			out = append(out, Allowed{Prefix: p.Masked(), Source: "local"})
		}
	}
	return out
}

// allowLocked makes the table that is asked, and gives what has changed.
func (g *Guard) allowLocked() []Change {
	table := new(bart.Table[int64])
	g.opened = make(map[string]int64)
	for _, e := range g.entries() {
		until := int64(forever)
		if !e.Until.IsZero() {
			until = e.Until.UnixMilli()
		}
		if e.Login != "" {
			g.opened[e.Login] = max(g.opened[e.Login], until)
			continue
		}
		if have, ok := table.Get(e.Prefix); !ok || until > have {
			table.Insert(e.Prefix, until)
		}
	}
	old := g.index.allow.Swap(table)
	var changes []Change
	for p := range table.All() {
		if _, ok := old.Get(p); !ok {
			changes = append(changes, Change{Kind: AllowAdded, Prefix: p, Scope: "all"})
		}
	}
	for p := range old.All() {
		if _, ok := table.Get(p); !ok {
			changes = append(changes, Change{Kind: AllowRemoved, Prefix: p, Scope: "all"})
		}
	}
	return changes
}

// reallow carries out a change of the allow lists.
func (g *Guard) reallow(edit func()) {
	g.changes.Lock()
	defer g.changes.Unlock()
	g.reallowLocked(edit)
}

// reallowLocked is reallow for who holds changes, to have the lists and what is
// written of them change in the same order.
func (g *Guard) reallowLocked(edit func()) {
	g.mu.Lock()
	edit()
	changes := g.allowLocked()
	g.mu.Unlock()
	for _, c := range changes {
		for _, f := range g.subscribers {
			f(c)
		}
	}
	g.queues.sentenced()
}

// SetAllowedNames tells what the host names in allowed-ip resolve to. A name
// that could not be resolved should keep what it had.
func (g *Guard) SetAllowedNames(names map[string][]netip.Addr) {
	g.reallow(func() { g.names = names })
}

// Allow adds an allow entry, at once and across restarts.
func (g *Guard) Allow(r AllowRequest) (Allowed, error) {
	now := g.clock.now()
	a := Allowed{Source: "command", Reason: r.Reason}
	switch {
	case (r.Target == "") == (r.Login == ""):
		return a, errors.New("name an address, a network or a login to allow")
	case r.Target != "":
		p, err := ParsePrefix(r.Target)
		if err != nil {
			return a, err
		}
		a.Prefix = p
	default:
		set := g.set.Load()
		if a.Login = set.logins.canonical(r.Login); a.Login == "" {
			return a, fmt.Errorf("%q is no login", r.Login)
		}
	}
	if r.For < 0 {
		return a, errors.New("a length of time is not negative")
	}
	if len(r.Reason) > maxReason {
		return a, fmt.Errorf("a reason has at most %d bytes", maxReason)
	}
	if r.For != 0 && r.For != Forever {
		a.Until = now.Add(r.For.Std())
	}
	k := allowKey(a)
	g.changes.Lock()
	g.reallowLocked(func() { g.allows[k] = a })
	written := g.writer.put(record{bucket: bucketAllow, key: k, value: encodeJSON(a)})
	g.changes.Unlock()
	awaitDurable(written)
	g.log.Info("allow", said("target", k, "for", cmp.Or(r.For, Forever).String(), "reason", r.Reason)...)
	return a, nil
}

// allowKey is an entry's key in the store: what is allowed.
func allowKey(a Allowed) string {
	if a.Login != "" {
		return "login " + a.Login
	}
	return a.Prefix.String()
}

// Disallow removes the allow entry that a command made for an address, network
// or login, and tells how many it removed.
func (g *Guard) Disallow(target string) (int, error) {
	set := g.set.Load()
	p, login := set.logins.parseTarget(target)
	k := allowKey(Allowed{Prefix: p, Login: login})
	written := g.disallow(k)
	if written == nil {
		for _, e := range g.Allowed() {
			if e.Prefix == p && login == "" {
				return 0, fmt.Errorf("%s is allowed by %s; a command cannot change that", target, e.Source)
			}
		}
		return 0, nil
	}
	awaitDurable(written)
	g.log.Info("disallow", "target", k)
	return 1, nil
}

// disallow removes an entry. It gives nil if there is none.
func (g *Guard) disallow(k string) (written <-chan struct{}) {
	g.changes.Lock()
	defer g.changes.Unlock()
	if _, ok := g.allows[k]; !ok { // it only changes while changes is held
		return nil
	}
	g.reallowLocked(func() { delete(g.allows, k) })
	return g.writer.put(record{bucket: bucketAllow, key: k})
}

// Allowed lists the allow entries.
func (g *Guard) Allowed() []Allowed {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.entries()
}

// takeAllow takes an entry from the store.
func (l *loader) takeAllow(k string, a Allowed) {
	if a.Until.IsZero() || a.Until.UnixMilli() > l.now {
		l.g.allows[k] = a
		return
	}
	l.stale = append(l.stale, record{bucket: bucketAllow, key: k})
}

// expireAllowed drops the entries that have ended.
func (g *Guard) expireAllowed(now int64) {
	var ended []string
	g.mu.Lock()
	for k, a := range g.allows {
		if !a.Until.IsZero() && a.Until.Before(time.UnixMilli(now)) {
			ended = append(ended, k)
		}
	}
	g.mu.Unlock()
	if len(ended) == 0 {
		return
	}
	g.reallow(func() {
		for _, k := range ended {
			delete(g.allows, k)
		}
	})
	for _, k := range ended {
		g.over(record{bucket: bucketAllow, key: k})
	}
}
