package main

import (
	"bufio"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"mailreeve/guard"
)

// How answers of the API are shown to people. Logins and reasons are others'
// text, and so is what other nodes of a fleet say: they are printed quoted where
// they hold anything but plain characters.

// timeLayout is how times are shown, in the operator's own time zone.
const timeLayout = "2006-01-02 15:04:05"

func (in *invocation) printf(format string, args ...any) {
	fmt.Fprintf(in.stdout, format, args...)
}

// table prints rows in aligned columns, the first row being their names.
func (in *invocation) table(rows [][]string) {
	out := bufio.NewWriter(in.stdout) // a tabwriter writes cell by cell
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
	out.Flush()
}

// plain gives a text as it is if it can do no harm on a terminal and cannot be
// taken for something else, and otherwise quoted.
func plain(s string) string {
	quoted := strconv.QuoteToGraphic(s)
	if quoted != `"`+s+`"` || strings.ContainsAny(s, " \t") {
		return quoted
	}
	return s
}

// unzoned gives an address without its zone, which may be any text.
func unzoned(a netip.Addr) string { return a.WithZone("").String() }

// until tells how much is left of something that ends at t.
func until(t time.Time) string {
	if t.IsZero() {
		return "forever"
	}
	left := time.Until(t).Round(time.Second)
	if left <= 0 {
		return "now"
	}
	return short(left)
}

// short prints a duration to two units, which is as much as anyone reads.
func short(d time.Duration) string {
	days, d := d/(24*time.Hour), d%(24*time.Hour)
	switch {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, d/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

func when(t time.Time) string { return t.Local().Format(timeLayout) }

// count prints a number with its noun.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

func points(p float64) string { return strconv.FormatFloat(p, 'f', -1, 64) }

func (in *invocation) showBans(bans []guard.Ban) {
	var t banTable
	in.showMore(&t, bans)
	in.showEnd(&t)
}

// A banTable is a list of bans that is shown a part at a time: each has columns
// aligned for itself, and the first has their names.
type banTable struct{ rows int }

func (in *invocation) showMore(t *banTable, bans []guard.Ban) {
	var rows [][]string
	if t.rows == 0 && len(bans) > 0 {
		rows = append(rows, []string{"TARGET", "SCOPE", "RULE", "SINCE", "LEFT", "TIMES", "REMARK"})
	}
	for _, b := range bans {
		rows = append(rows, []string{
			plain(b.Target), plain(b.Scope), plain(b.Rule), when(b.Since), until(b.Until), strconv.Itoa(b.Count), remark(b),
		})
	}
	t.rows += len(bans)
	in.table(rows)
	for _, b := range bans {
		if len(b.Events) > 0 {
			in.printf("\n%s: %s points, limit %s\n", plain(b.Target), points(b.Score), plain(b.Limit))
			in.showScored(b.Events)
		}
	}
}

func (in *invocation) showEnd(t *banTable) {
	if t.rows == 0 {
		in.printf("no bans\n")
	}
}

func remark(b guard.Ban) string {
	var r []string
	if b.Kind != "" && b.Kind != "ban" {
		r = append(r, b.Kind)
	}
	if b.Soft {
		r = append(r, "soft: its familiar logins still pass")
	}
	if b.Simulated {
		r = append(r, "dry run: not enforced")
	}
	if b.Reason != "" {
		r = append(r, plain(b.Reason))
	}
	if b.Missing != "" {
		r = append(r, plain(b.Missing))
	}
	return strings.Join(r, "; ")
}

func (in *invocation) showNewBan(b guard.Ordered) {
	if b.Before == nil {
		in.printf("%s: banned in scope %s, %s\n", b.Target, b.Scope, forHowLong(b.Until))
		return
	}
	change := "as before"
	if !b.Until.Equal(b.Before.Until) {
		change = "before " + forHowLong(b.Before.Until)
	}
	in.printf("%s: banned in scope %s already, by rule %s; now by hand, %s, %s\n",
		b.Target, b.Scope, plain(b.Before.Rule), forHowLong(b.Until), change)
	if b.Reason != "" {
		in.printf("  reason: %s\n", plain(b.Reason))
	}
}

func forHowLong(end time.Time) string {
	if end.IsZero() {
		return "forever"
	}
	return fmt.Sprintf("until %s (%s)", when(end), until(end))
}

func (in *invocation) showRemoved(target string, r guard.Removed) {
	if len(r.Bans) == 0 && r.Counters == 0 && r.History == 0 {
		in.printf("%s: nothing to remove\n", plain(target))
	} else {
		in.printf("%s: removed %s, %s points in %s, %s\n", plain(target), count(len(r.Bans), "ban", "bans"),
			points(r.Points), count(r.Counters, "counter", "counters"), count(r.History, "ended ban", "ended bans"))
	}
	for _, b := range r.Bans {
		in.printf("  %s in scope %s by rule %s, %s left\n", plain(b.Target), plain(b.Scope), plain(b.Rule), until(b.Until))
	}
	for _, b := range r.Remaining {
		in.printf("  still banned by %s in scope %s (rule %s); unban that to let it in\n", plain(b.Target), plain(b.Scope), plain(b.Rule))
	}
}

func (in *invocation) showAllowed(list []guard.Allowed) {
	if len(list) == 0 {
		in.printf("nobody is allowed specially\n")
		return
	}
	rows := [][]string{{"ALLOWED", "BY", "LEFT", "REMARK"}}
	for _, a := range list {
		by := a.Source
		if a.Name != "" {
			by += " " + plain(a.Name)
		}
		rows = append(rows, []string{allowedTarget(a), by, until(a.Until), plainOrEmpty(a.Reason)})
	}
	in.table(rows)
}

func plainOrEmpty(s string) string {
	if s == "" {
		return ""
	}
	return plain(s)
}

func allowedTarget(a guard.Allowed) string {
	if a.Login != "" {
		return "login " + plain(a.Login)
	}
	return bare(a.Prefix)
}

// bare prints an address without the width that says it is one.
func bare(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func (in *invocation) showNewAllowed(a guard.Allowed) {
	in.printf("%s: allowed %s\n", allowedTarget(a), forHowLong(a.Until))
}

func (in *invocation) showLogins(list []guard.GuardedLogin) {
	if len(list) == 0 {
		in.printf("no login is guarded\n")
		return
	}
	rows := [][]string{{"LOGIN", "SINCE", "LEFT", "TIMES", "FAMILIAR PLACES"}}
	for _, l := range list {
		name := plain(l.Login)
		if l.Simulated {
			name += " (dry run)"
		}
		rows = append(rows, []string{name, when(l.Since), until(l.Until), strconv.Itoa(l.Count), places(l.Places)})
	}
	in.table(rows)
}

func places(list []guard.Place) string {
	if len(list) == 0 {
		return "none"
	}
	var s []string
	for _, p := range list {
		s = append(s, bare(p.Addr))
	}
	return strings.Join(s, " ")
}

func (in *invocation) showTop(t guard.Top) {
	for _, part := range []struct {
		name   string
		scores []guard.Score
	}{{"ADDRESS", t.Addresses}, {"NETWORK", t.Networks}, {"LOGIN", t.Logins}} {
		rows := [][]string{{part.name, "POINTS", "LIMIT", "RULE"}}
		for _, s := range part.scores {
			rows = append(rows, []string{plain(s.Key), points(s.Points), plain(s.Limit), plain(s.Rule)})
		}
		if len(part.scores) > 0 {
			in.table(rows)
			in.printf("\n")
		}
	}
	if len(t.Addresses)+len(t.Networks)+len(t.Logins) == 0 {
		in.printf("nobody has any points\n")
	}
}
