package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mailreeve/protocol"
)

// goodConfig is about the least that a configuration has.
const goodConfig = `
[[upstream]]
name = "imap"
addresses = ["127.0.0.1:11143"]

[[listener]]
name = "imap"
address = ":143"
protocol = "imap"
tls = "none"
upstream = "imap"
`

// TestBadConfigs reads each file in testdata/bad. Its first lines, "# want: ",
// are the error that it must give, line by line; {protocols} are those there
// are.
func TestBadConfigs(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) < 20 {
		t.Fatalf("testdata/bad has %d files, %v", len(files), err)
	}
	var protocols []string
	for _, p := range protocol.All {
		protocols = append(protocols, p.Name)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(text)) {
				w, is := strings.CutPrefix(line, "# want: ")
				if !is {
					break
				}
				w = strings.ReplaceAll(w, "{protocols}", strings.Join(protocols, ", "))
				want = append(want, strings.TrimSpace(w))
			}
			_, err = parseConfig("config.toml", string(text))
			if err == nil {
				t.Fatalf("accepted; want %q", want)
			}
			if diff := cmp.Diff(strings.Join(want, "\n"), err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGoodConfig(t *testing.T) {
	c, err := parseConfig("config.toml", goodConfig)
	if err != nil {
		t.Fatal(err)
	}
	if l := c.Listeners[0]; l.Scope != "auth" || !*l.Auth || l.PlaintextAuth != "no" {
		t.Errorf("the listener's defaults are not filled in: %+v", l)
	}
	if u := c.Upstreams[0]; u.ProxyProtocol != "v2" || u.TLS != "none" || u.ProbeInterval.String() != "1m" {
		t.Errorf("the upstream's defaults are not filled in: %+v", u)
	}
	if got := c.Guard.Authentication.String(); got != "10/1h" {
		t.Errorf("guard.authentication = %s, want the default 10/1h", got)
	}
}

func TestMissingConfigFileSaysWhatToDo(t *testing.T) {
	_, err := loadConfig(filepath.Join(t.TempDir(), "none.toml"))
	if err == nil || !strings.Contains(err.Error(), "--config FILE") {
		t.Errorf("error %v does not say what to do", err)
	}
	if _, err := loadConfig(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is not a file") {
		t.Errorf("a directory: error %v", err)
	}
}

// TestExampleIsTheDefaults holds config.toml.example to the code: what is
// switched off with # in it is what would be in force without it.
func TestExampleIsTheDefaults(t *testing.T) {
	text := readExample(t)
	asIs, err := parseConfig("config.toml.example", text)
	if err != nil {
		t.Fatal(err)
	}
	uncommented := regexp.MustCompile(`(?m)^#([a-z0-9-]+ = )`).ReplaceAllString(text, "$1")
	if uncommented == text {
		t.Fatal("nothing to uncomment in config.toml.example")
	}
	all, err := parseConfig("config.toml.example", uncommented)
	if err != nil {
		t.Fatal(err)
	}
	// An empty list and no list are the same.
	if diff := cmp.Diff(asIs, all, cmp.Transformer("nil", func(list []string) []string {
		return append([]string{}, list...)
	})); diff != "" {
		t.Errorf("the example's defaults (+) are not the code's (-):\n%s", diff)
	}
}

// TestExampleHasEverySetting finds each setting of the configuration's structs
// in config.toml.example, below its table's header.
func TestExampleHasEverySetting(t *testing.T) {
	text := readExample(t)
	tables := append([]string{""}, settingTables(reflect.TypeFor[Config](), "")...)
	sections := map[string]string{}
	table := ""
	header := regexp.MustCompile(`^(?:##\s*)?\[+([a-z.]+)\]+\s*$`)
	for line := range strings.Lines(text) {
		if m := header.FindStringSubmatch(line); m != nil {
			table = m[1]
		}
		sections[table] += line
	}
	for _, table := range tables {
		for _, key := range settings(reflect.TypeFor[Config](), table) {
			if contains := settings(reflect.TypeFor[Config](), joinPath(table, key)); contains != nil {
				continue // A table; its own settings are looked for.
			}
			if !regexp.MustCompile(`(?m)^(#|##\s+)?` + key + ` = `).MatchString(sections[table]) {
				t.Errorf("config.toml.example does not have %s", joinPath(table, key))
			}
		}
	}
}

// TestExampleRowsAreRight uncomments the rule and the reply row that the
// example shows.
func TestExampleRowsAreRight(t *testing.T) {
	text := regexp.MustCompile(`(?m)^##   (\[\[|[a-z-]+ +=)`).ReplaceAllString(readExample(t), "$1")
	c, err := parseConfig("config.toml.example", text)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Guard.Rules) != 1 || c.Guard.Rules[0].Name != "patient" {
		t.Errorf("guard.rule = %+v", c.Guard.Rules)
	}
	if len(c.Replies) != 1 || c.Replies[0].Means != "neutral" {
		t.Errorf("reply = %+v", c.Replies)
	}
}

func readExample(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../config.toml.example")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// FuzzConfig feeds the parser and the locator anything. Whatever comes, an
// error names a line of the file.
func FuzzConfig(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "../../config.toml.example") {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Count(text, "\n") + 1
		for _, p := range locate(text).places {
			if p.line < 1 || p.line > lines {
				t.Errorf("%s is said to be on line %d of %d", p.path, p.line, lines)
			}
		}
		c, err := parseConfig("config.toml", text)
		if (c == nil) == (err == nil) {
			t.Errorf("config %v with error %v", c, err)
		}
		if err != nil && !regexp.MustCompile(`^config\.toml:[1-9]`).MatchString(err.Error()) {
			t.Errorf("an error without a line: %v", err)
		}
	})
}
