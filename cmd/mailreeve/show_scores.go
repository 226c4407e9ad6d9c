package main

import (
	"fmt"
	"slices"
	"time"

	"mailreeve/guard"
)

// showScore tells of a counter, which has column n in the table of events.
func (in *invocation) showScore(n int, target string, s *guard.Score) {
	in.printf("  [%d] %s of %s now, rule %s", n, points(s.Points), plain(s.Limit), plain(s.Rule))
	if s.Key != target {
		in.printf(" for %s", plain(s.Key))
	}
	if s.Pending > 0 {
		in.printf(" (and %s for guesses that the server has not answered yet)", points(s.Pending))
	}
	in.printf("\n")
}

// An eventID tells one event from another. Of several that are the same in all
// we know, occurrence tells them apart.
type eventID struct {
	guard.Event
	at         int64
	occurrence int
}

// scoreTable makes a row of each event, with its points under each ban that it
// led to and each counter that has it, and a last row of the sums. So nothing is
// listed twice, and every column adds up.
func scoreTable(scores []guard.Score) [][]string {
	type line struct {
		guard.Scored
		points []string
	}
	lines := map[eventID]*line{}
	var order []*line
	for i, s := range scores {
		seen := map[eventID]int{}
		for _, e := range s.Events {
			id := eventID{Event: e.Event, at: e.Time.UnixMilli()}
			id.Time = time.Time{}
			n := seen[id]
			seen[id]++
			id.occurrence = n
			l := lines[id]
			if l == nil {
				l = &line{Scored: e, points: make([]string, len(scores))}
				lines[id] = l
				order = append(order, l)
			}
			l.points[i] = points(e.Points)
		}
	}
	slices.SortStableFunc(order, func(a, b *line) int { return a.Time.Compare(b.Time) })
	head, sum := []string{"     TIME", "KIND", "LISTENER", "ADDRESS"}, []string{"     sum", "", "", ""}
	for i, s := range scores {
		head = append(head, fmt.Sprintf("[%d]", i+1))
		sum = append(sum, points(s.Points))
	}
	rows := [][]string{append(head, "ABOUT")}
	for _, l := range order {
		row := []string{"     " + when(l.Time), plain(string(l.Kind)), plain(l.Listener), unzoned(l.Addr)}
		for _, p := range l.points {
			if p == "" {
				p = "-"
			}
			row = append(row, p)
		}
		if l.Folded > 0 {
			rows = append(rows, append(row, fmt.Sprintf("%s and %d more", about(l.Event), l.Folded)))
			continue
		}
		rows = append(rows, append(row, about(l.Event)))
	}
	return append(rows, append(sum, ""))
}
