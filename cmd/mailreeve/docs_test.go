package main

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// TestCommandsDocumented finds a heading in docs/commands.md for every command,
// and no other.
func TestCommandsDocumented(t *testing.T) {
	var want []string
	for _, v := range verbs() {
		want = append(want, v.name)
	}
	got := found(t, "../../docs/commands.md", `(?m)^## ([a-z]+)$`)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("docs/commands.md has %v\nthe program %v", got, want)
	}
}

// TestMetricsDocumented keeps docs/metrics.md and the metrics equal, and lets
// no alert and no panel use one that does not exist.
func TestMetricsDocumented(t *testing.T) {
	d := startDaemon(t)
	happen(t, d)
	families, err := d.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "mailreeve_") {
			want = append(want, f.GetName())
		}
	}
	// Those with labels that have not been counted yet are only described.
	descs := make(chan *prometheus.Desc)
	go func() {
		d.metrics.registry.Describe(descs)
		close(descs)
	}()
	for desc := range descs {
		m := regexp.MustCompile(`fqName: "(mailreeve_[a-z0-9_]+)"`).FindStringSubmatch(desc.String())
		if m != nil {
			want = append(want, m[1])
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	documented := found(t, "../../docs/metrics.md", "(?m)^\\| `(mailreeve_[a-z0-9_]+)")
	for _, name := range want {
		if !slices.Contains(documented, name) {
			t.Errorf("docs/metrics.md does not have %s", name)
		}
	}
	used := slices.Concat(documented,
		found(t, "../../deploy/prometheus/mailreeve.rules.yml", `(mailreeve_[a-z0-9_]+)`),
		found(t, "../../deploy/grafana/mailreeve.json", `(mailreeve_[a-z0-9_]+)`))
	for _, name := range used {
		if !slices.Contains(want, name) {
			t.Errorf("%s is documented, or used in an alert or on the dashboard, and does not exist", name)
		}
	}
}

// happen lets everything happen that the guard counts by a label: an event, a
// ban, a wrong password, one that is refused.
func happen(t *testing.T, d *daemon) {
	t.Helper()
	origin := func(addr string) *guard.Origin {
		return &guard.Origin{Addr: netip.MustParseAddr(addr), Listener: "imap", Scope: "auth", Protocol: "imap", Upstream: "imap"}
	}
	credential := &protocol.Credential{Mechanism: "LOGIN", Identities: []string{"alice"}, Secret: []byte("wrong")}
	d.guard.Report(origin("192.0.2.1"), "", protocol.Event{Kind: protocol.Loitering})
	if _, err := d.guard.AddBan(guard.BanRequest{Target: "192.0.2.2"}); err != nil {
		t.Fatal(err)
	}
	attempt, decision := d.guard.Attempt(t.Context(), origin("192.0.2.1"), credential)
	if decision.Verdict != protocol.Pass {
		t.Fatalf("a first guess: %v", decision)
	}
	d.guard.Settle(attempt, protocol.Failure, "NO")
	if _, decision := d.guard.Attempt(t.Context(), origin("192.0.2.2"), credential); decision.Verdict != protocol.Banned {
		t.Fatalf("a banned address's guess: %v", decision)
	}
}

// found gives what a pattern's first group finds in a file, sorted, each once.
func found(t *testing.T, file, pattern string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(text, -1) {
		names = append(names, string(m[1]))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// TestManualPage keeps the manual page's commands and the program's equal.
func TestManualPage(t *testing.T) {
	page, err := os.ReadFile("../../deploy/package/mailreeve.8")
	if err != nil {
		t.Fatal(err)
	}
	want := ".Bl -tag -width completion\n"
	for _, v := range verbs() {
		want += ".It Cm " + v.name + "\n" + strings.ToUpper(v.summary[:1]) + v.summary[1:] + ".\n"
	}
	if want += ".El\n"; !strings.Contains(string(page), want) {
		t.Errorf("the manual page's list of commands is not\n%s", want)
	}
}
