package main

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// table prints the results as a Markdown table, one line a figure. Under a
// peer's name stand its figure and, after it, mailreeve's ratio to it.
func (r *results) table(w io.Writer, names []string) {
	fmt.Fprintf(w, "| row | figure | reach | %s |\n", strings.Join(names, " | "))
	fmt.Fprintf(w, "|---|---|---|%s\n", strings.Repeat("---|", len(names)))
	for _, l := range r.lines {
		cells := make([]string, len(names))
		for i, name := range names {
			cells[i] = l.cell(name)
		}
		fmt.Fprintf(w, "| %s (`%s`) | %s, %s | %s | %s |\n", l.about, l.row,
			l.metric.name, l.metric.unit, l.metric.reach, strings.Join(cells, " | "))
	}
	fmt.Fprintln(w, "\nEach cell: median (minimum–maximum) of the rounds; × is mailreeve's figure over this one's, "+
		"median (minimum–maximum) of the ratios within a round; ~ marks a range wider than 40 % of the median. "+
		"Rates share two cores with clients and server; CPU is the proxy's own.")
}

func (l *line) cell(name string) string {
	s, ok := l.of(name)
	if !ok || l.metric.ofProxy && name == nameDirect {
		return "–"
	}
	text := number(s.median)
	if len(l.values[name]) > 1 {
		text += fmt.Sprintf(" (%s–%s)", number(s.low), number(s.high))
	}
	if s.noisy() {
		text = "~" + text
	}
	if name == nameMailreeve || name == nameDirect {
		return text
	}
	if ratio, ok := l.ratio(name); ok {
		text += fmt.Sprintf("; %.2f×", ratio.median)
		if len(l.values[name]) > 1 {
			text += fmt.Sprintf(" (%.2f–%.2f)", ratio.low, ratio.high)
		}
	}
	return text
}

// number prints three significant digits.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// closing prints what to know about the run.
func (r *results) closing(w io.Writer) {
	steal := spreadOf(r.steal)
	fmt.Fprintf(w, "\nSteal: median %.1f %%, at most %.1f %%, of the machine's time.\n", steal.median, steal.high)
	var noisy []string
	for _, l := range r.lines {
		if s, ok := l.of(nameMailreeve); ok && s.noisy() {
			noisy = append(noisy, l.row+" "+l.metric.name)
		}
	}
	if len(noisy) > 0 {
		fmt.Fprintf(w, "Noisy for mailreeve: %s.\n", strings.Join(noisy, ", "))
	}
	for _, note := range r.notes {
		fmt.Fprintln(w, note)
	}
}
