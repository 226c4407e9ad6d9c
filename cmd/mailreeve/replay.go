package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// replayVerb plays an event log against a configuration that is not in force.
// Nothing of the running program is asked or changed.
func replayVerb(flags *flag.FlagSet) action {
	changed := flags.Bool("changed", false, "list only the bans that are not the same")
	return func(ctx context.Context, in *invocation, args []string) error {
		if len(args) == 0 {
			return usageError("name the event log, with its rotated files: replay /var/lib/mailreeve/events.jsonl* --config NEW")
		}
		c, err := loadConfig(in.config)
		if err != nil {
			return &exitError{exitConfig, err}
		}
		answer, err := replay(ctx, args, in.config, c)
		if err != nil {
			return err
		}
		if in.json {
			return in.printJSON(answer)
		}
		in.showReplay(answer, *changed)
		return nil
	}
}

// A simulation is a guard on a clock of its own, to which recorded events
// happen again.
type simulation struct {
	guard  *guard.Guard
	survey *survey
	scopes map[string]string // of the configuration's listeners
	clock  simulatedClock

	reached, refused int

	mu   sync.Mutex
	bans []guard.Ban // those that fell, in order
}

// A simulatedClock tells the time of the event that is played.
type simulatedClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *simulatedClock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *simulatedClock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.After(c.now) {
		c.now = t
	}
}

// replay plays files against the configuration c from file. It reads them
// twice: to know who logged in, and to play them.
func replay(ctx context.Context, files []string, file string, c *Config) (*replayAnswer, error) {
	s := newSurvey(c.Guard.IPv4Width, c.Guard.IPv6Width)
	unreadable, lost, err := eachEvent(files, s.take)
	if err != nil {
		return nil, err
	}
	if s.events == 0 {
		return nil, errors.New("there is no event in the log")
	}
	sim, err := newSimulation(ctx, c, s)
	if err != nil {
		return nil, err
	}
	_, _, err = eachEvent(files, func(n *guard.News) error { return sim.happen(ctx, n) })
	if err := errors.Join(err, sim.guard.Close()); err != nil {
		return nil, err
	}
	answer := sim.compare()
	answer.Config, answer.Unreadable, answer.Lost = file, unreadable, lost
	return answer, nil
}

func newSimulation(ctx context.Context, c *Config, s *survey) (*simulation, error) {
	opt, err := guardOptions(ctx, c)
	if err != nil {
		return nil, err
	}
	sim := &simulation{survey: s, scopes: map[string]string{}}
	sim.clock.set(s.from.Add(-time.Minute))
	for _, l := range c.Listeners {
		sim.scopes[l.Name] = l.Scope
	}
	opt.Store = guard.StoreConfig{Kind: "memory"}
	opt.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	opt.Now = sim.clock.time
	// What would happen without the dry run is what is asked.
	cfg := c.Guard
	cfg.DryRun = false
	cfg.Rules = append([]guard.RuleConfig(nil), cfg.Rules...)
	for i := range cfg.Rules {
		cfg.Rules[i].DryRun = false
	}
	if sim.guard, err = guard.Open(cfg, opt); err != nil {
		return nil, err
	}
	sim.guard.SetAllowedNames(lookupAll(ctx, cfg.AllowedNames()))
	sim.guard.Follow(func(n *guard.News) {
		if n.Ban != nil && string(n.Kind) == n.Ban.Kind {
			sim.mu.Lock()
			defer sim.mu.Unlock()
			sim.bans = append(sim.bans, *n.Ban)
		}
	})
	// The guard that wrote the log knew places from before its beginning.
	for i := range s.familiar {
		n := s.familiar[i]
		n.Kind, n.Guess = guard.AuthSuccess, ""
		sim.attempt(ctx, &n)
	}
	sim.reached, sim.refused = 0, 0
	return sim, nil
}

// lookupAll resolves the host names of allowed-ip, as they are now.
func lookupAll(ctx context.Context, names []string) map[string][]netip.Addr {
	r := newResolver(nil, slog.New(slog.NewTextHandler(io.Discard, nil)))
	found := map[string][]netip.Addr{}
	for _, name := range names {
		found[name] = r.resolve(ctx, name, nil, map[string]bool{})
	}
	return found
}

// happen plays one event.
func (sim *simulation) happen(ctx context.Context, n *guard.News) error {
	sim.clock.set(n.Time)
	switch {
	case n.Elsewhere:
		// The log of the node that decided it has it.
	case n.Ban != nil:
		return sim.byHand(n)
	case n.Kind == guard.HoneypotLogin:
		// The credential that it was is the next event.
	case isAttempt(n.Kind):
		sim.attempt(ctx, n)
	default:
		o := sim.origin(n)
		if sim.guard.Admit(o) == protocol.Banned {
			return nil
		}
		loggedIn := ""
		if n.LoggedIn {
			loggedIn = "somebody"
		}
		sim.guard.Report(o, loggedIn, protocol.Event{Kind: n.Kind, Login: n.Login, Recipient: n.Recipient, Code: n.Code})
	}
	return ctx.Err()
}

// isAttempt tells the kinds of events that are about credentials.
func isAttempt(k protocol.Kind) bool {
	switch k {
	case protocol.AuthFailure, guard.AuthSuccess, guard.AuthUnjudged, guard.AuthRefused:
		return true
	}
	return false
}

// byHand repeats what an operator did: a ban by hand, or one lifted before its
// time. What rules did follows from the events.
func (sim *simulation) byHand(n *guard.News) error {
	b := n.Ban
	switch {
	case n.Kind == "ban" && b.Rule == "manual":
		length := guard.Forever
		if !b.Forever() {
			length = guard.Duration(b.Until.Sub(b.Since))
		}
		// That the new configuration allows the target is no error here.
		_, _ = sim.guard.AddBan(guard.BanRequest{Target: b.Target, Scope: b.Scope, For: length, Reason: b.Reason})
	case strings.HasPrefix(string(n.Kind), "un") && (b.Forever() || n.Time.Before(b.Until.Add(-time.Second))):
		if _, err := sim.guard.Unban(guard.UnbanRequest{Target: target(b)}); err != nil {
			return fmt.Errorf("%s at %s: %w", n.Kind, n.Time, err)
		}
	}
	return nil
}

// target is what an unban of the ban is for: of a login's own budget at a place,
// the login.
func target(b *guard.Ban) string {
	if b.Login != "" {
		return b.Login
	}
	return b.Target
}

// attempt plays a credential. The guess, 16 bits of a keyed hash, stands for the
// password: what was the same is the same again.
func (sim *simulation) attempt(ctx context.Context, n *guard.News) {
	o := sim.origin(n)
	if sim.guard.Admit(o) == protocol.Banned {
		sim.refused++
		return
	}
	c := &protocol.Credential{Mechanism: "PLAIN", Identities: append([]string{n.Login}, n.Also...)}
	if n.Guess != "" {
		c.Secret = []byte(n.Guess)
	}
	a, _ := sim.guard.Attempt(ctx, o, c)
	if a == nil {
		sim.refused++
		return
	}
	sim.reached++
	sim.guard.Settle(a, sim.outcome(n), n.Code)
}

// outcome is what the server said, or for what it never saw most likely would
// have said.
func (sim *simulation) outcome(n *guard.News) protocol.Outcome {
	switch n.Kind {
	case guard.AuthSuccess:
		return protocol.Success
	case guard.AuthUnjudged:
		return protocol.Neutral
	case guard.AuthRefused:
		if sim.survey.mayBeRight(n) {
			return protocol.Neutral
		}
	}
	return protocol.Failure
}

func (sim *simulation) origin(n *guard.News) *guard.Origin {
	o := &guard.Origin{
		Addr: n.Addr, Listener: n.Listener, Scope: n.Scope, Protocol: n.Protocol, Upstream: n.Upstream, Conn: n.Conn,
	}
	if scope, ok := sim.scopes[n.Listener]; ok {
		o.Scope = scope
	}
	return o
}
