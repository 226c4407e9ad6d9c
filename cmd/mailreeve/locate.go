package main

import "strings"

// A locator knows on which line of a TOML file each key stands. The TOML
// package tells what is unknown or of the wrong type, but gives all elements
// of an array of tables ([[listener]]) one position; and an error found
// between settings has none at all.
//
// It reads files that have passed the TOML parser; on others it may be wrong
// about lines but ends all the same.
type locator struct {
	places []place
}

// A place is where a key or a table's header stands.
type place struct {
	path string
	// index is the position of the element that the key belongs to among its
	// like, 0 outside of arrays of tables.
	index  int
	line   int
	header bool
}

// locate reads a file's text.
func locate(text string) *locator {
	l := &locator{}
	count := map[string]int{}
	table, line := "", 1
	for text != "" {
		start := strings.TrimLeft(text, " \t\r")
		switch {
		case strings.HasPrefix(start, "[["):
			table = headerPath(start[2:])
			l.add(table, count[table], line, true)
			count[table]++
		case strings.HasPrefix(start, "["):
			table = headerPath(start[1:])
			l.add(table, elementOf(table, count), line, true)
		case start == "" || start[0] == '#' || start[0] == '\n':
		default:
			key, _ := scanKey(start, '=')
			l.add(joinPath(table, key), elementOf(table, count), line, false)
		}
		n := statementLength(text)
		line += strings.Count(text[:n], "\n")
		text = text[n:]
	}
	return l
}

func (l *locator) add(path string, index, line int, header bool) {
	l.places = append(l.places, place{path, index, line, header})
}

// line gives the line of a key in the index-th element of a table. Where the
// key is not in the file it gives the line of what it would be in: the value
// around it, the table's header, the first line.
func (l *locator) line(table string, index int, key string) int {
	for path := joinPath(table, key); path != ""; path = parentPath(path) {
		for _, p := range l.places {
			if p.path == path && p.index == index {
				return p.line
			}
		}
	}
	return 1
}

// first gives the line of the first key of that path, in whichever element.
func (l *locator) first(path string) int {
	for ; path != ""; path = parentPath(path) {
		for _, p := range l.places {
			if p.path == path {
				return p.line
			}
		}
	}
	return 1
}

// has tells whether a key, or the value around it, begins on that line.
func (l *locator) has(path string, line int) bool {
	for ; path != ""; path = parentPath(path) {
		for _, p := range l.places {
			if p.path == path && p.line == line && !p.header {
				return true
			}
		}
	}
	return false
}

// elements gives the lines on which the elements of an array of tables begin.
func (l *locator) elements(table string) []int {
	var lines []int
	for _, p := range l.places {
		if p.header && p.path == table && p.index == len(lines) {
			lines = append(lines, p.line)
		}
	}
	return lines
}

// elementOf gives the position of the element of an array of tables that a
// table is, or is in; 0 if there is none.
func elementOf(table string, count map[string]int) int {
	for path := table; path != ""; path = parentPath(path) {
		if n := count[path]; n > 0 {
			return n - 1
		}
	}
	return 0
}

func joinPath(table, key string) string {
	if table == "" || key == "" {
		return table + key
	}
	return table + "." + key
}

func parentPath(path string) string {
	return path[:max(0, strings.LastIndexByte(path, '.'))]
}

func headerPath(s string) string {
	path, _ := scanKey(s, ']')
	return path
}

// scanKey reads a key, dotted and quoted as it may be, up to the given byte,
// and gives it without quotes and blanks.
func scanKey(s string, until byte) (path string, rest string) {
	var b strings.Builder
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\n':
			return b.String(), s[i:]
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				b.WriteByte(c)
			}
		case c == until:
			return b.String(), s[i+1:]
		case c == '"' || c == '\'':
			quote = c
		case c == ' ' || c == '\t':
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), ""
}

// statementLength tells how many bytes the statement at the start of s takes
// with its line end: to the first newline outside of brackets and strings.
func statementLength(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\n':
			if depth <= 0 {
				return i + 1
			}
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case '#':
			if n := strings.IndexByte(s[i:], '\n'); n >= 0 {
				i += n - 1
			} else {
				return len(s)
			}
		case '"', '\'':
			i += stringLength(s[i:]) - 1
		}
	}
	return len(s)
}

// stringLength tells how many bytes the TOML string at the start of s takes.
// One that does not end where it must takes the rest of its line.
func stringLength(s string) int {
	quote := s[:1]
	if long := strings.Repeat(quote, 3); strings.HasPrefix(s, long) {
		for i := 3; i < len(s); i++ {
			if s[i] == '\\' && quote == `"` {
				i++
			} else if strings.HasPrefix(s[i:], long) {
				// Up to two quotes may stand right before the closing three.
				for i+3 < len(s) && s[i+3] == quote[0] {
					i++
				}
				return i + 3
			}
		}
		return len(s)
	}
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\n':
			return i
		case s[i] == '\\' && quote == `"` && i+1 < len(s) && s[i+1] != '\n':
			i++
		case s[i] == quote[0]:
			return i + 1
		}
	}
	return len(s)
}
