package main

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// unknownKey says that a key is unknown and which one may have been meant.
func unknownKey(path string) string {
	table, key := parentPath(path), path[strings.LastIndexByte(path, '.')+1:]
	siblings := settings(reflect.TypeFor[Config](), table)
	if best := nearest(key, siblings); best != "" {
		return fmt.Sprintf("is unknown; did you mean %q?", best)
	}
	for _, other := range settingTables(reflect.TypeFor[Config](), "") {
		if slices.Contains(settings(reflect.TypeFor[Config](), other), key) {
			return fmt.Sprintf("is unknown here; it belongs in [%s]", other)
		}
	}
	if len(siblings) == 0 {
		return "is unknown"
	}
	return "is unknown; there are " + strings.Join(siblings, ", ")
}

// settings lists the keys of a table of the configuration, given by the tags
// of the struct behind it; nil where there is no such table.
func settings(t reflect.Type, table string) []string {
	for part := range strings.SplitSeq(table, ".") {
		if part == "" {
			continue
		}
		field, ok := fieldByTag(t, part)
		if !ok {
			return nil
		}
		if t = tableType(field.Type); t == nil {
			return nil
		}
	}
	var keys []string
	for _, f := range reflect.VisibleFields(t) {
		if tag := tagOf(f); tag != "" {
			keys = append(keys, tag)
		}
	}
	return keys
}

// settingTables lists the tables below t by their paths.
func settingTables(t reflect.Type, path string) []string {
	var tables []string
	for _, f := range reflect.VisibleFields(t) {
		below := tableType(f.Type)
		if tagOf(f) == "" || below == nil {
			continue
		}
		tables = append(tables, joinPath(path, tagOf(f)))
		tables = append(tables, settingTables(below, joinPath(path, tagOf(f)))...)
	}
	return tables
}

func fieldByTag(t reflect.Type, tag string) (reflect.StructField, bool) {
	for _, f := range reflect.VisibleFields(t) {
		if tagOf(f) == tag {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

func tagOf(f reflect.StructField) string {
	tag, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
	if tag == "-" {
		return ""
	}
	return tag
}

// tableType gives the struct behind a table or an array of tables, nil where
// the setting is a value.
func tableType(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return nil
	}
	return t
}

// nearest gives the word that takes the fewest edits to become, "" if none is
// near.
func nearest(word string, words []string) string {
	best, least := "", 1+len(word)/3
	for _, w := range words {
		if d := editDistance(word, w); d <= least && (best == "" || d < least) {
			best, least = w, d
		}
	}
	return best
}

// editDistance counts the insertions, deletions and substitutions between two
// short words (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
