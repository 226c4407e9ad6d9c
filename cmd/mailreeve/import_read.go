package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailreeve/guard"
)

// An importEntry is a ban as other programs keep it.
type importEntry struct {
	target string
	// until is when it ends; zero where that is not told, and forever if it
	// never does.
	until   time.Time
	forever bool
	reason  string
	// scope is told by our own export only.
	scope string
}

// detectFormat tells what a text is from its beginning.
func detectFormat(text []byte) string {
	text = bytes.TrimSpace(text)
	first, _, _ := bytes.Cut(text, []byte("\n"))
	switch {
	case bytes.HasPrefix(text, []byte("[{'")), withTime().Match(first):
		return "fail2ban"
	case bytes.HasPrefix(text, []byte("[")), bytes.HasPrefix(text, []byte("{")):
		return "json"
	case bytes.Contains(first, []byte(",")) && !bytes.Contains(first, []byte("#")):
		return "csv"
	}
	return "plain"
}

// readEntries reads what an import file has.
func readEntries(format string, text []byte) ([]importEntry, error) {
	switch format {
	case "csv":
		return readCSV(text)
	case "json":
		return readJSON(text)
	case "fail2ban":
		return readFail2banOutput(text)
	}
	return readPlain(text)
}

// readPlain reads a list of addresses and networks, one a line or several with
// blanks between. What follows # or ; is the reason.
func readPlain(text []byte) ([]importEntry, error) {
	var out []importEntry
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line, reason := lines.Text(), ""
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line, reason = line[:i], strings.TrimSpace(line[i+1:])
		}
		for _, word := range strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == ',' }) {
			if _, err := guard.ParsePrefix(word); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			out = append(out, importEntry{target: word, reason: reason})
		}
	}
	return out, lines.Err()
}

// Names that columns and JSON fields go by in lists of others.
func targetNames() []string {
	return []string{"target", "address", "ip", "network", "prefix", "value", "cidr"}
}
func untilNames() []string {
	return []string{"until", "expires", "expiry", "expires_at", "expiresat", "end"}
}
func forNames() []string { return []string{"for", "duration", "left"} }
func reasonNames() []string {
	return []string{"reason", "rule", "comment", "scenario", "jail"}
}

// readCSV reads a table whose first line names the columns; without such a line
// the first column is the target.
func readCSV(text []byte) ([]importEntry, error) {
	r := csv.NewReader(bytes.NewReader(text))
	r.FieldsPerRecord, r.Comment, r.TrimLeadingSpace = -1, '#', true
	var names []string
	var out []importEntry
	for {
		row, err := r.Read()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if names == nil {
			if names = csvNames(row); names[0] != "target" || row[0] == "target" {
				continue
			}
		}
		fields := map[string]string{}
		for i, value := range row {
			if i < len(names) {
				fields[names[i]] = value
			}
		}
		e, err := newEntry(func(names []string) string { return firstOf(fields, names) })
		if err != nil {
			line, _ := r.FieldPos(0)
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		out = append(out, e)
	}
}

// csvNames gives the columns' names.
func csvNames(row []string) []string {
	if _, err := guard.ParsePrefix(row[0]); err == nil {
		return []string{"target"}
	}
	var names []string
	for _, name := range row {
		names = append(names, strings.ToLower(strings.TrimSpace(name)))
	}
	if !slices.ContainsFunc(names, func(n string) bool { return slices.Contains(targetNames(), n) }) {
		return []string{"target"} // and the row is then found to have none
	}
	return names
}

func firstOf(fields map[string]string, names []string) string {
	for _, name := range names {
		if v := strings.TrimSpace(fields[name]); v != "" {
			return v
		}
	}
	return ""
}

// newEntry makes an entry of fields under any of their names.
func newEntry(field func(names []string) string) (importEntry, error) {
	e := importEntry{target: field(targetNames()), reason: field(reasonNames())}
	// CrowdSec calls the kind of a target its scope.
	if scope := field([]string{"scope"}); !strings.EqualFold(scope, "ip") && !strings.EqualFold(scope, "range") {
		e.scope = scope
	}
	if _, err := guard.ParsePrefix(e.target); err != nil {
		return e, err
	}
	if text := field(untilNames()); text != "" {
		return e, e.setUntil(text)
	}
	if text := field(forNames()); text != "" {
		return e, e.setFor(text)
	}
	return e, nil
}

// setUntil reads an end: a time, or "forever".
func (e *importEntry) setUntil(text string) error {
	if text == "forever" || text == "never" {
		e.forever = true
		return nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05 -0700 MST", "2006-01-02 15:04:05Z07:00"} {
		if t, err := time.Parse(layout, text); err == nil {
			e.until = t
			return nil
		}
	}
	if t, err := time.ParseInLocation(time.DateTime, text, time.Local); err == nil {
		e.until = t
		return nil
	}
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil && seconds > 0 {
		e.until = time.Unix(seconds, 0)
		return nil
	}
	return fmt.Errorf("%s: %q is not a time; write it like 2026-01-31T12:00:00Z, or forever", e.target, text)
}

// setFor reads a length of time from now: in our words, Go's or in seconds.
func (e *importEntry) setFor(text string) error {
	if d, err := guard.ParseDuration(text); err == nil {
		if e.forever = d == guard.Forever; !e.forever {
			e.until = time.Now().Add(d.Std())
		}
		return nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		e.until = time.Now().Add(d)
		return nil
	}
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		e.lasts(time.Now(), seconds)
		return nil
	}
	return fmt.Errorf("%s: %q is not a length of time", e.target, text)
}

// lasts sets the end of a ban as fail2ban keeps it: seconds from its beginning,
// a negative number meaning forever, and so many that there is no such time.
func (e *importEntry) lasts(begun time.Time, seconds int64) {
	const most = int64(math.MaxInt64 / time.Second) // 292 years
	if e.forever = seconds < 0 || seconds > most; !e.forever {
		e.until = begun.Add(time.Duration(seconds) * time.Second)
	}
}

// readJSON reads a list of objects, or an object a line, such as our own export
// or the decisions of another program; lists inside objects are looked into.
func readJSON(text []byte) ([]importEntry, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	var out []importEntry
	for {
		var v any
		err := dec.Decode(&v)
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("byte %d: %w", dec.InputOffset(), err)
		}
		if out, err = collectJSON(out, v); err != nil {
			return nil, err
		}
	}
}

func collectJSON(out []importEntry, v any) ([]importEntry, error) {
	var err error
	switch v := v.(type) {
	case string:
		if _, err = guard.ParsePrefix(v); err == nil {
			out = append(out, importEntry{target: v})
		}
		return out, err
	case []any:
		for _, inner := range v {
			if out, err = collectJSON(out, inner); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		fields := map[string]string{}
		for name, value := range v {
			switch value := value.(type) {
			case string:
				fields[strings.ToLower(name)] = value
			case float64:
				fields[strings.ToLower(name)] = strconv.FormatFloat(value, 'f', -1, 64)
			}
		}
		if firstOf(fields, targetNames()) != "" {
			e, err := newEntry(func(names []string) string { return firstOf(fields, names) })
			if ours := fields["since"] != "" && fields["rule"] != ""; ours && fields["until"] == "" {
				e.forever = true // our own bans without an end
			}
			return append(out, e), err
		}
		for _, name := range []string{"bans", "decisions", "new", "items", "data"} {
			if inner, ok := v[name].([]any); ok {
				return collectJSON(out, inner)
			}
		}
		return nil, fmt.Errorf("an object has none of %s", strings.Join(targetNames(), ", "))
	}
	return out, nil
}

// withTime matches a line of `fail2ban-client get JAIL banip --with-time`, and
// jailed what `fail2ban-client banned` prints: a Python list of dictionaries.
func withTime() *regexp.Regexp {
	return regexp.MustCompile(`^\s*([0-9a-fA-F.:/]+)\s+(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \+ (-?\d+) = `)
}

func jailed() *regexp.Regexp { return regexp.MustCompile(`'([^']*)'(\s*:)?`) }

// readFail2banOutput reads what fail2ban-client prints.
func readFail2banOutput(text []byte) ([]importEntry, error) {
	var out []importEntry
	if trimmed := bytes.TrimSpace(text); bytes.HasPrefix(trimmed, []byte("[")) {
		jail := ""
		for _, m := range jailed().FindAllSubmatch(trimmed, -1) {
			word := string(m[1])
			if len(m[2]) > 0 {
				jail = word
				continue
			}
			if _, err := netip.ParsePrefix(word); err != nil {
				if _, err := netip.ParseAddr(word); err != nil {
					continue // fail2ban bans by other names than addresses as well
				}
			}
			out = append(out, importEntry{target: word, reason: "fail2ban " + jail})
		}
		return out, nil
	}
	timed := withTime()
	for n, line := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
		m := timed.FindSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("line %d is not what `fail2ban-client get JAIL banip --with-time` prints: %q", n+1, line)
		}
		begun, err := time.ParseInLocation(time.DateTime, string(m[2]), time.Local)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		seconds, err := strconv.ParseInt(string(m[3]), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		e := importEntry{target: string(m[1]), reason: "fail2ban"}
		e.lasts(begun, seconds)
		out = append(out, e)
	}
	return out, nil
}
