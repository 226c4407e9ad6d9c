package guard

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"pgregory.net/rapid"

	"mailreeve/protocol"
)

func TestDurationsReadAsWritten(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "10m": 10 * time.Minute, "1h": time.Hour, "7d": 168 * time.Hour,
		"2w": 336 * time.Hour, "1d12h": 36 * time.Hour, "500ms": 500 * time.Millisecond, "0": 0,
		"1.5h": 90 * time.Minute, "forever": time.Duration(Forever),
	} {
		d, err := ParseDuration(text)
		if err != nil || d.Std() != want {
			t.Errorf("%s: %v, %v, want %v", text, d.Std(), err, want)
		}
	}
	for _, text := range []string{"", "1", "h", "1y", "-1h", "1h1", "..s", "1e9h", "999999w"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q is taken as %v", text, d)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64Range(0, int64(90*365*24*time.Hour)).Draw(t, "d")).Std().Truncate(time.Microsecond)
		back, err := ParseDuration(Duration(d).String())
		if err != nil || (back.Std()-d).Abs() > time.Microsecond {
			t.Fatalf("%v is written %q and read %v, %v", d, Duration(d), back, err)
		}
	})
}

func TestLimitsReadAsWritten(t *testing.T) {
	for _, text := range []string{"10/1h", "35/1d", "off", "1.5/10m", "100/2w"} {
		var l Limit
		if err := l.UnmarshalText([]byte(text)); err != nil || l.String() != text {
			t.Errorf("%s reads as %v, %v", text, l, err)
		}
	}
	for _, text := range []string{"", "10", "10/", "/1h", "0/1h", "-1/1h", "0.5/1h", "1e9/1h", "10/1y", "10/forever", "NaN/1h", "10/0"} {
		var l Limit
		if err := l.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as %v", text, l)
		}
	}
}

func TestTheDefaultsAreValidAndTheDesignsTableReads(t *testing.T) {
	cfg := DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	md, err := toml.Decode(`
authentication = "10/1h"
login          = "20/1h"
invalid-rcpt   = "35/1d"
loitering      = "150/1d"
spray          = "off"
network        = "50/1h"
abuse          = "30/1d"
familiar       = "30d"
guard-time     = "1h"
ban-time       = "1h"
max-ban-time   = "forever"
allowed-ip     = ["198.51.100.0/24", "2001:db8::1", "home.example.test"]
blocked-ip     = []
exempt-local   = true
[[rule]]
name = "noise"
key = "address"
limit = "5/10m"
distinct = "none"
[rule.points]
bad-command = 0.2
early-talk = 2
`, &cfg)
	if err != nil || len(md.Undecoded()) > 0 {
		t.Fatal(err, md.Undecoded())
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	if got := cfg.AllowedNames(); len(got) != 1 || got[0] != "home.example.test" {
		t.Errorf("names: %v", got)
	}
	rs := newRules(&cfg)
	if rs.named("spray") != nil {
		t.Error("spray is off and still there")
	}
	if r := rs.named("noise"); r == nil || r.points[protocol.BadCommand] != 200 || r.limit != 5000 {
		t.Errorf("noise: %+v", r)
	}
}

func TestFaultsNameTheirKey(t *testing.T) {
	for key, edit := range map[string]func(*Config){
		"ban-time":            func(c *Config) { c.BanTime = Duration(30 * 24 * time.Hour) },
		"max-ban-time":        func(c *Config) { c.MaxBanTime = 0 },
		"familiar":            func(c *Config) { c.Familiar = -1 },
		"allowed-ip":          func(c *Config) { c.AllowedIP = []string{"192.0.2.1/24"} },
		"blocked-ip":          func(c *Config) { c.BlockedIP = []string{"example.test"} },
		"ipv6-width":          func(c *Config) { c.IPv6Width = 32 },
		"trickle":             func(c *Config) { c.Trickle = Duration(time.Millisecond) },
		"tarpit":              func(c *Config) { c.Tarpit = Duration(time.Minute) },
		"login":               func(c *Config) { c.Login = Limit{0.5, Duration(time.Hour)} },
		"rule[0].name":        func(c *Config) { c.Rules = []RuleConfig{{Key: "address", Points: one}} },
		"rule[0].key":         func(c *Config) { c.Rules = []RuleConfig{{Name: "x", Key: "planet", Points: one}} },
		"rule[0].points":      func(c *Config) { c.Rules = []RuleConfig{{Name: "x", Key: "address"}} },
		"rule[0].consequence": func(c *Config) { c.Rules = []RuleConfig{{Name: "x", Key: "login", Consequence: "ban", Points: one}} },
		"rule[1].name":        func(c *Config) { r := RuleConfig{Name: "x", Key: "address", Points: one}; c.Rules = []RuleConfig{r, r} },
		"rule[0].max-time": func(c *Config) {
			c.Rules = []RuleConfig{{Name: "x", Key: "address", Points: one, Limit: Limit{9, 1e9}, MaxTime: 1e9}}
		},
		"rule[0].growth":      func(c *Config) { c.Rules = []RuleConfig{{Name: "x", Key: "address", Points: one, Growth: 0.5}} },
		"rule[0].distinct":    func(c *Config) { c.Rules = []RuleConfig{{Name: "x", Key: "address", Points: one, Distinct: "all"}} },
		"rule[0].limit":       func(c *Config) { c.Rules = []RuleConfig{{Name: "x", Key: "address", Points: one, Limit: Limit{-1, 1}}} },
		"authentication-slow": func(c *Config) { c.AuthenticationSlow = Limit{10, Duration(365 * 24 * time.Hour)} },
	} {
		cfg := DefaultConfig()
		edit(&cfg)
		err := cfg.Validate()
		var ke *KeyError
		if !errors.As(err, &ke) || !strings.Contains(err.Error(), "guard."+key+":") {
			t.Errorf("%s: error %v", key, err)
		}
	}
}

var one = map[protocol.Kind]float64{protocol.AuthFailure: 1}

// Every kind that package protocol has is known here, or scores nothing.
func TestEveryPointIsOfAKnownKind(t *testing.T) {
	cfg := DefaultConfig()
	for _, r := range builtin(&cfg) {
		for k := range r.Points {
			if !slices.Contains(kinds, k) {
				t.Errorf("rule %s gives points to %q, which is no kind", r.Name, k)
			}
		}
	}
}

func TestLoginsAreOneInAllTheirSpellings(t *testing.T) {
	cfg := DefaultConfig()
	cfg.DefaultDomain, cfg.PlusAddressing = "Example.Test", true
	l := newLogins(&cfg, map[string]string{"boss": "alice@example.test"})
	for _, s := range []string{"alice", "Alice", " alice ", "alice@example.test", "ALICE@EXAMPLE.TEST.", "alice+x@example.test", "al\x00ice", "boss", "Boss@example.test"} {
		if got := l.canonical(s); got != "alice@example.test" {
			t.Errorf("%q is %q", s, got)
		}
	}
	if a, b := l.canonical(strings.Repeat("x", 300)+"1"), l.canonical(strings.Repeat("x", 300)+"2"); a != b {
		t.Error("what is beyond the cut makes another key")
	}
	if got := l.all([]string{"alice", "", "ALICE", "bob"}); len(got) != 2 {
		t.Errorf("all: %q", got)
	}
}
