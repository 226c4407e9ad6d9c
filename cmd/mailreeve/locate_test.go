package main

import "testing"

func TestLocator(t *testing.T) {
	const text = `hostname = "x"
[admin] # [[listener]]
socket = """
[[listener]]
name = "not a key"
"""
'metrics' = '#'

[[listener]]
name = "a"
trusted-proxies = [
  "name = 1", # ] "
  '''
name = 2''', ]
tls = "none"

[[listener]]
name = "b"
guard . "quoted" = 1

[[guard.rule]]
name = "r0"
[guard.rule.points]
auth-failure = 1
[[guard.rule]]
points = { auth-failure = 1 }
name = "r1"`
	for _, c := range []struct {
		table string
		index int
		key   string
		want  int
	}{
		{"", 0, "hostname", 1},
		{"admin", 0, "socket", 3},
		{"admin", 0, "metrics", 7},
		{"listener", 0, "name", 10},
		{"listener", 0, "tls", 15},
		{"listener", 1, "name", 18},
		{"listener", 1, "guard.quoted", 19},
		{"listener", 1, "tls", 17},    // Missing: its element's header.
		{"listener", 2, "name", 1},    // No such element.
		{"guard.rule", 0, "name", 22}, // Nested tables belong to their element.
		{"guard.rule", 0, "points.auth-failure", 24},
		{"guard.rule", 1, "points.auth-failure", 26}, // Inline: the line around it.
		{"guard.rule", 1, "name", 27},
	} {
		if got := locate(text).line(c.table, c.index, c.key); got != c.want {
			t.Errorf("%s[%d].%s is on line %d, want %d", c.table, c.index, c.key, got, c.want)
		}
	}
}

func TestLocatorEndsOnBrokenText(t *testing.T) {
	for _, text := range []string{"[[", "[a", "a = [", "a = '", `a = """`, `a = "\`, "= 1", "]", "\x00", "'a\nb = 1"} {
		locate(text) // It must end, and not panic.
	}
}
