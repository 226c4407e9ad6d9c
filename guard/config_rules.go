package guard

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// names of what a rule's text fields may say.
var (
	keyNames         = []string{"address", "network", "login", "login-at-address"}
	distinctNames    = []string{"", "none", "guess", "login", "recipient"}
	consequenceNames = []string{"", "ban", "guard", "refuse", "delay"}
)

func (c *Config) validateRules() (errs []error) {
	seen := map[string]bool{}
	for i := range c.Rules {
		r := &c.Rules[i]
		bad := func(key, format string, args ...any) {
			errs = append(errs, keyErr(fmt.Sprintf("rule[%d].%s", i, key), format, args...))
		}
		switch {
		case r.Name == "":
			bad("name", "a rule needs a name")
		case strings.Trim(r.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
			bad("name", "%q: a name has lower case letters, digits and hyphens", r.Name)
		case len(r.Name) > MaxName:
			bad("name", "is longer than %d bytes", MaxName)
		case seen[r.Name]:
			bad("name", "there are two rules named %q", r.Name)
		}
		seen[r.Name] = true
		for _, e := range []struct {
			key, value string
			names      []string
		}{
			{"key", r.Key, keyNames},
			{"distinct", r.Distinct, distinctNames},
			{"consequence", r.Consequence, consequenceNames},
		} {
			if !slices.Contains(e.names, e.value) {
				bad(e.key, "%q is none of %s", e.value, strings.Join(slices.DeleteFunc(slices.Clone(e.names), func(n string) bool { return n == "" }), ", "))
			}
		}
		if (r.Consequence == "guard") != (r.Key == "login") && r.Consequence != "delay" {
			bad("consequence", "a rule by login guards the login, and only such a rule does")
		}
		if r.Consequence == "ban" && r.Key == "login-at-address" {
			bad("consequence", "a login at an address cannot be banned; use refuse or delay")
		}
		if err := r.Limit.validate(); err != nil {
			bad("limit", "%w", err)
		}
		if len(r.Points) == 0 {
			bad("points", "a rule needs points for at least one kind of event")
		}
		for kind, p := range r.Points {
			switch {
			case !slices.Contains(kinds, kind):
				bad("points", "%q is no kind of event", kind)
			case p < 0.001 || p > maxLimit:
				bad("points", "%s = %v is out of range, from 0.001 to %d", kind, p, maxLimit)
			case !r.Limit.Off() && r.Limit.Points/p > maxMarks:
				bad("points", "%s = %v would need more than %d events to reach %v; give more points or a smaller limit", kind, p, maxMarks, r.Limit.Points)
			}
		}
		if r.Growth != 0 && (r.Growth < 1 || r.Growth > 10) {
			bad("growth", "%v is out of range, from 1 to 10", r.Growth)
		}
		if r.Time < 0 || r.MaxTime < 0 {
			bad("time", "a length of time is not negative")
		}
		if first := cmp.Or(r.Time, c.BanTime); r.MaxTime > 0 && r.MaxTime < first {
			bad("max-time", "%v is shorter than the first time, %v", r.MaxTime, first)
		}
	}
	return errs
}
