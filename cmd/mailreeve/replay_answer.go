package main

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"mailreeve/guard"
)

// A replayAnswer is what `replay --json` prints.
type replayAnswer struct {
	Config     string    `json:"config"`
	From       time.Time `json:"from"`
	To         time.Time `json:"to"`
	Events     int       `json:"events"`
	Unreadable int       `json:"unreadable"`
	Lost       int64     `json:"lost"`
	// Was is what happened, Would what would have under the configuration.
	Was   replaySide  `json:"was"`
	Would replaySide  `json:"would"`
	Bans  []replayBan `json:"bans"`
}

// A replaySide is what happened under one configuration.
type replaySide struct {
	Bans   int            `json:"bans"`
	ByRule map[string]int `json:"by_rule"`
	// Guarded counts logins closed to strangers and networks whose strangers
	// were refused.
	Guarded int `json:"guarded"`
	// Reached and Refused are credentials that went to a server, and that did
	// not.
	Reached int `json:"credentials_reached"`
	Refused int `json:"credentials_refused"`
	// FalseBans are bans of addresses that logged in within an hour of the
	// ban's beginning or end, and FalseBanRate their share.
	FalseBans    int     `json:"false_bans"`
	FalseBanRate float64 `json:"false_ban_rate"`
}

// A replayBan is a ban, or the guarding of a login, and whether it is in both
// configurations.
type replayBan struct {
	// Change is "same", "new" (it would have been) or "gone" (it was).
	Change string    `json:"change"`
	Ban    guard.Ban `json:"ban"`
	// LoggedIn is a success at the address within an hour of the ban.
	LoggedIn time.Time `json:"logged_in,omitzero"`
}

// compare puts side by side what was and what would have been.
func (sim *simulation) compare() *replayAnswer {
	s := sim.survey
	a := &replayAnswer{From: s.from, To: s.to, Events: s.events, Bans: []replayBan{}}
	a.Was = s.side(s.bans, s.reached, s.refused)
	a.Would = s.side(sim.bans, sim.reached, sim.refused)
	type place struct{ kind, target, scope string }
	was := map[place][]*guard.Ban{}
	for i := range s.bans {
		b := &s.bans[i]
		p := place{b.Kind, b.Target, b.Scope}
		was[p] = append(was[p], b)
	}
	for _, b := range sim.bans {
		r := replayBan{Change: "new", Ban: b}
		p := place{b.Kind, b.Target, b.Scope}
		if i := slices.IndexFunc(was[p], atTheTimeOf(&b)); i >= 0 {
			r.Change = "same"
			was[p] = slices.Delete(slices.Clone(was[p]), i, i+1)
		}
		r.LoggedIn, _ = s.mistaken(&b)
		a.Bans = append(a.Bans, r)
	}
	for _, left := range was {
		for _, b := range left {
			r := replayBan{Change: "gone", Ban: *b}
			r.LoggedIn, _ = s.mistaken(b)
			a.Bans = append(a.Bans, r)
		}
	}
	slices.SortStableFunc(a.Bans, func(x, y replayBan) int { return x.Ban.Since.Compare(y.Ban.Since) })
	return a
}

// atTheTimeOf chooses a ban that was in force at the same time as b.
func atTheTimeOf(b *guard.Ban) func(*guard.Ban) bool {
	return func(o *guard.Ban) bool {
		return (o.Forever() || b.Since.Before(o.Until)) && (b.Forever() || o.Since.Before(b.Until))
	}
}

func (s *survey) side(bans []guard.Ban, reached, refused int) replaySide {
	side := replaySide{ByRule: map[string]int{}, Reached: reached, Refused: refused}
	for i := range bans {
		b := &bans[i]
		if b.Kind != "ban" {
			side.Guarded++
			continue
		}
		side.Bans++
		side.ByRule[b.Rule]++
		if _, ok := s.mistaken(b); ok {
			side.FalseBans++
		}
	}
	side.FalseBanRate = float64(side.FalseBans) / float64(max(side.Bans, 1))
	return side
}

func (in *invocation) showReplay(a *replayAnswer, changed bool) {
	in.printf("%d events from %s to %s, played against %s\n", a.Events, when(a.From), when(a.To), a.Config)
	if a.Unreadable > 0 {
		in.printf("%s no event and left out\n", count(a.Unreadable, "line was", "lines were"))
	}
	if a.Lost > 0 {
		in.printf("%s not recorded, so this is not all\n", count(int(a.Lost), "event was", "events were"))
	}
	in.printf("\n")
	rows := [][]string{{"", "WAS", "WOULD BE"}}
	row := func(name string, was, would int) {
		rows = append(rows, []string{name, strconv.Itoa(was), strconv.Itoa(would)})
	}
	row("bans", a.Was.Bans, a.Would.Bans)
	names := maps.Clone(a.Was.ByRule)
	maps.Copy(names, a.Would.ByRule)
	for _, rule := range slices.Sorted(maps.Keys(names)) {
		row("  "+rule, a.Was.ByRule[rule], a.Would.ByRule[rule])
	}
	rows = append(rows, []string{"probably false", share(a.Was), share(a.Would)})
	row("guarded logins, refused networks", a.Was.Guarded, a.Would.Guarded)
	row("credentials that reach the server", a.Was.Reached, a.Would.Reached)
	row("credentials refused before it", a.Was.Refused, a.Would.Refused)
	in.table(rows)
	in.showReplayBans(a.Bans, changed)
}

func share(s replaySide) string {
	if s.FalseBans == 0 {
		return "0"
	}
	return strconv.Itoa(s.FalseBans) + " (" + strconv.FormatFloat(100*s.FalseBanRate, 'f', 1, 64) + " %)"
}

func (in *invocation) showReplayBans(bans []replayBan, changed bool) {
	signs := map[string]string{"same": "=", "new": "+", "gone": "-"}
	rows := [][]string{{"", "SINCE", "TARGET", "SCOPE", "RULE", "POINTS", "UNTIL", "REMARK"}}
	for _, r := range bans {
		if changed && r.Change == "same" {
			continue
		}
		end := "forever"
		if !r.Ban.Forever() {
			end = when(r.Ban.Until)
		}
		note := remark(r.Ban)
		if !r.LoggedIn.IsZero() {
			if note != "" {
				note += "; "
			}
			note += "logged in at " + when(r.LoggedIn)
		}
		rows = append(rows, []string{signs[r.Change], when(r.Ban.Since), plain(r.Ban.Target), r.Ban.Scope, r.Ban.Rule,
			points(r.Ban.Score), end, note})
	}
	if len(rows) == 1 {
		return
	}
	in.printf("\n")
	in.table(rows)
	in.printf("\n+ would be, - was and would not be, = both\n")
}
