package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Prometheus's own tool takes what mailreeve exports, the alerts, and every
// query of the dashboard.
func TestPrometheusTakesMetricsAlertsAndDashboard(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, bed.Standard(nil))
	answer, err := http.Get(p.MetricsURL())
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lint := exec.Command("promtool", "check", "metrics")
	lint.Stdin = answer.Body
	if out, err := lint.CombinedOutput(); err != nil {
		t.Errorf("the metrics: %v\n%s", err, out)
	}
	queries := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(queries, []byte(asRules(panelQueries(t))), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, rules := range []string{"../deploy/prometheus/mailreeve.rules.yml", queries} {
		if out, err := exec.Command("promtool", "check", "rules", rules).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", rules, err, out)
		}
	}
}

// panelQueries gives what the dashboard asks Prometheus.
func panelQueries(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../deploy/grafana/mailreeve.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	var queries []string
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries = append(queries, target.Expr)
		}
	}
	if len(queries) < 20 {
		t.Fatalf("only %d queries on the dashboard", len(queries))
	}
	return queries
}

// asRules makes recording rules of queries, with values for Grafana's
// variables, because promtool checks rules only.
func asRules(queries []string) string {
	values := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*")
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, q := range queries {
		fmt.Fprintf(&rules, "  - record: panel:%d\n    expr: %q\n", i, values.Replace(q))
	}
	return rules.String()
}
