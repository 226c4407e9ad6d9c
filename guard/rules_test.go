package guard

import (
	"slices"
	"testing"

	"mailreeve/protocol"
)

// An event is asked about at the rules that count it, in their order, and at no
// other.
func TestRulesByKind(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Rules = []RuleConfig{{Name: "own", Key: "address", Limit: Limit{5, Duration(1)}, Points: map[protocol.Kind]float64{
		protocol.BadCommand: 1, protocol.AuthFailure: 1}}}
	counting := newRules(&cfg).byKind()
	for kind, want := range map[protocol.Kind][]string{
		protocol.AuthFailure: {"authentication", "authentication-slow", "login", "spray", "network", "own"},
		protocol.InvalidRcpt: {"invalid-rcpt"},
		protocol.GoodRcpt:    {"invalid-rcpt"}, // for its share
		protocol.BadCommand:  {"abuse", "own"},
		protocol.TLSFailure:  nil,
	} {
		var got []string
		for _, r := range counting[kind] {
			got = append(got, r.name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", kind, got, want)
		}
	}
}
