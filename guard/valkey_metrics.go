package guard

import "github.com/prometheus/client_golang/prometheus"

// collect gives the metrics of the shared store.
func (f *fleet) collect(ch chan<- prometheus.Metric) {
	var s StoreStatus
	f.status(&s)
	for _, m := range []struct {
		name, help string
		kind       prometheus.ValueType
		value      float64
	}{
		{"connected", "Whether the shared store is there; if not this node goes on alone.", prometheus.GaugeValue, boolValue(s.Shared.Connected)},
		{"buffered_steps", "Counts that the shared store has not been told.", prometheus.GaugeValue, float64(s.Shared.Buffered)},
		{"pending_records", "Bans and places that the shared store has not been told.", prometheus.GaugeValue, float64(s.Shared.Pending)},
		{"failures_total", "Calls to the shared store that failed or took too long, so that this node decided alone.", prometheus.CounterValue, float64(s.Shared.Timeouts)},
		{"outages_total", "How often the shared store was away.", prometheus.CounterValue, float64(s.Shared.Outages)},
		{"ignored_values_total", "Values in the shared store that made no sense.", prometheus.CounterValue, float64(s.Shared.Ignored)},
		{"applied_changes_total", "Changes of other nodes taken over.", prometheus.CounterValue, float64(f.follower.applied.Load())},
		{"clock_ahead_seconds", "By how much the shared store's clock is ahead of this node's.", prometheus.GaugeValue, float64(f.link.ahead.Load()) / 1000},
	} {
		desc := prometheus.NewDesc("mailreeve_shared_store_"+m.name, m.help, nil, nil)
		ch <- prometheus.MustNewConstMetric(desc, m.kind, m.value)
	}
}
