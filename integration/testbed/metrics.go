package testbed

import (
	"io"
	"strconv"
	"strings"
)

// The metrics that the tests look at.
const (
	MetricConnections = "mailreeve_connections"               // open now, by listener
	MetricAccepted    = "mailreeve_connections_total"         // let in, by listener
	MetricRefused     = "mailreeve_connections_refused_total" // at accept, by listener and reason
	MetricDials       = "mailreeve_upstream_dials_total"      // by upstream and result
	MetricEvents      = "mailreeve_events_total"              // by kind and listener
	MetricBansTotal   = "mailreeve_bans_total"                // by rule and scope

	MetricFilterOn      = "mailreeve_kernel_filter_on"                 // 1 or 0
	MetricFilterEntries = "mailreeve_kernel_filter_entries"            // by scope
	MetricFilterDropped = "mailreeve_kernel_filter_dropped_syns_total" // by listener

	MetricHeapLive = "go_gc_heap_live_bytes" // after the last collection

	metricGoroutines = "go_goroutines"
	metricWaiting    = "mailreeve_goroutines_waiting"
)

// Labels choose series.
type Labels map[string]string

// Metric adds up the series of that name that have these labels.
func (p *Proxy) Metric(name string, labels Labels) float64 {
	text, err := p.metricsText()
	if err != nil {
		p.t.Errorf("read metrics: %v", err)
		return 0
	}
	return sumSeries(string(text), name, labels)
}

func (p *Proxy) metricsText() ([]byte, error) {
	resp, err := p.web.Get(p.MetricsURL())
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// MetricsURL is where the metrics are.
func (p *Proxy) MetricsURL() string { return "http://" + p.metrics + "/metrics" }

// sumSeries reads Prometheus's text format as far as client_golang writes it.
// Label values of ours hold neither quotes nor commas.
func sumSeries(text, name string, labels Labels) float64 {
	var sum float64
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || (rest[0] != ' ' && rest[0] != '{') {
			continue
		}
		set, value := "", rest
		if end := strings.LastIndexByte(rest, '}'); end >= 0 {
			set, value = rest[:end], rest[end+1:]
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err == nil && hasLabels(set, labels) {
			sum += v
		}
	}
	return sum
}

func hasLabels(set string, labels Labels) bool {
	for k, v := range labels {
		label := k + `="` + v + `"`
		if !strings.Contains(set, "{"+label) && !strings.Contains(set, ","+label) {
			return false
		}
	}
	return true
}
