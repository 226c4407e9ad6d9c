package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// A reading is one figure of one round: a raw line.
type reading struct {
	Time   time.Time `json:"time"`
	Row    string    `json:"row"`
	Target string    `json:"target"`
	Round  int       `json:"round"`
	Metric string    `json:"metric"`
	Unit   string    `json:"unit"`
	Value  float64   `json:"value"`
	Steal  float64   `json:"steal_percent"`
}

// A line of the table is one figure of one row, for all targets.
type line struct {
	row    string
	about  string
	metric metric
	// values are those of each target, by round.
	values map[string]map[int]float64
}

// results are the readings so far.
type results struct {
	lines []*line
	raw   io.Writer // takes JSON lines; nil: none
	steal []float64
	notes []string
}

// add takes a reading of a row's metric.
func (r *results) add(of *row, m metric, target string, round int, value, steal float64) error {
	i := slices.IndexFunc(r.lines, func(l *line) bool {
		return l.row == of.name && l.metric.name == m.name && l.metric.unit == m.unit
	})
	if i < 0 {
		i = len(r.lines)
		r.lines = append(r.lines, &line{of.name, of.about, m, map[string]map[int]float64{}})
	}
	l := r.lines[i]
	if l.values[target] == nil {
		l.values[target] = map[int]float64{}
	}
	l.values[target][round] = value
	r.steal = append(r.steal, steal)
	if r.raw == nil {
		return nil
	}
	return json.NewEncoder(r.raw).Encode(reading{
		time.Now().UTC(), of.name, target, round, m.name, m.unit, value, steal,
	})
}

// note keeps what the reader must know beside the figures.
func (r *results) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// A spread is a median with its range.
type spread struct{ median, low, high float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(values))
	middle := s[len(s)/2]
	if len(s)%2 == 0 {
		middle = (s[len(s)/2-1] + middle) / 2
	}
	return spread{middle, s[0], s[len(s)-1]}
}

// noisy tells that the range is so wide that the median says little.
func (s spread) noisy() bool { return s.median > 0 && (s.high-s.low)/s.median > 0.4 }

// of is the spread of one target.
func (l *line) of(target string) (spread, bool) {
	var values []float64
	for _, v := range l.values[target] {
		values = append(values, v)
	}
	return spreadOf(values), len(values) > 0
}

// ratio is mailreeve's figure over a peer's, round by round, so that what slows
// the machine for a while slows both.
func (l *line) ratio(peer string) (spread, bool) {
	var ratios []float64
	for round, ours := range l.values[nameMailreeve] {
		if theirs, ok := l.values[peer][round]; ok && theirs > 0 {
			ratios = append(ratios, ours/theirs)
		}
	}
	return spreadOf(ratios), len(ratios) > 0
}
