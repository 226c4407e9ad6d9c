package main

import (
	"fmt"
	"strings"

	"mailreeve/guard"
)

func (in *invocation) showWhy(w guard.Why) {
	in.printf("%s\n", plain(w.Target))
	if len(w.Bans)+len(w.Past)+len(w.Scores)+len(w.Allowed)+len(w.Places) == 0 {
		in.printf("  nothing is known: no ban, no points, no allow entry\n")
		return
	}
	for _, a := range w.Allowed {
		in.printf("  allowed by %s as %s, %s left: allow beats ban\n", a.Source, allowedTarget(a), until(a.Until))
	}
	var sums []guard.Score // each with events that add up to it
	for _, b := range w.Bans {
		in.printf("  banned as %s in scope %s by rule %s since %s, %s left (no. %d)\n",
			plain(b.Target), plain(b.Scope), plain(b.Rule), when(b.Since), until(b.Until), b.Count)
		if r := remark(b); r != "" {
			in.printf("    %s\n", r)
		}
		if len(b.Events) > 0 {
			sums = append(sums, guard.Score{Points: b.Score, Events: b.Events})
			in.printf("    [%d] %s points reached the limit %s\n", len(sums), points(b.Score), plain(b.Limit))
		}
	}
	for _, b := range w.Past {
		in.printf("  was banned as %s by rule %s until %s; it counts for how long the next one is\n",
			plain(b.Target), plain(b.Rule), when(b.Until))
	}
	for _, s := range w.Scores {
		sums = append(sums, s)
		in.showScore(len(sums), w.Target, &s)
	}
	if rows := scoreTable(sums); len(rows) > 2 {
		in.table(rows)
	}
	if len(w.Places) > 0 {
		in.printf("  familiar places: %s\n", places(w.Places))
	}
}

// showScored lists events whose points add up to a score.
func (in *invocation) showScored(events []guard.Scored) {
	var rows [][]string
	for _, e := range events {
		row := []string{"     +" + points(e.Points), when(e.Time), plain(string(e.Kind)), plain(e.Listener), unzoned(e.Addr), about(e.Event)}
		if e.Folded > 0 {
			row[5] += fmt.Sprintf(" and %d more", e.Folded)
		}
		rows = append(rows, row)
	}
	in.table(rows)
}

// about gives what an event is about, without what the other columns have.
func about(e guard.Event) string {
	var s []string
	for _, part := range []struct{ name, value string }{
		{"login", e.Login}, {"recipient", e.Recipient}, {"code", e.Code}, {"guess", e.Guess},
		{"outcome", e.Outcome}, {"verdict", e.Verdict}, {"rule", e.Rule},
	} {
		if part.value != "" {
			s = append(s, part.name+"="+plain(part.value))
		}
	}
	return strings.Join(s, " ")
}
