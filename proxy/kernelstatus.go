package proxy

import "github.com/prometheus/client_golang/prometheus"

// A KernelFilterStatus is what `mailreeve status` shows of the filter.
type KernelFilterStatus struct {
	// State is "on", "off", or "unavailable" for Reason.
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	// Entries is how many bans the kernel knows, each once for each scope.
	Entries int `json:"entries"`
}

// status tells how it stands, and how many SYNs each listener has dropped.
func (f *kernelFilter) status() (KernelFilterStatus, map[string]uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := KernelFilterStatus{State: f.state}
	if f.reason != nil {
		st.Reason = f.reason.Error()
	}
	for name, set := range f.sets {
		if !name.allow {
			st.Entries += set.entries
		}
	}
	dropped := map[string]uint64{}
	for name, m := range f.dropped {
		dropped[name] = readTally(m)
	}
	return st, dropped
}

var (
	filterDropped = prometheus.NewDesc("mailreeve_kernel_filter_dropped_syns_total",
		"SYNs of banned addresses that the kernel dropped; a client sends several before it gives up.", []string{"listener"}, nil)
	filterEntries = prometheus.NewDesc("mailreeve_kernel_filter_entries",
		"Bans that the kernel knows.", []string{"scope"}, nil)
	filterActive = prometheus.NewDesc("mailreeve_kernel_filter_on",
		"Whether the kernel drops the SYNs of banned addresses.", nil, nil)
)

func (f *kernelFilter) describe(ch chan<- *prometheus.Desc) {
	ch <- filterDropped
	ch <- filterEntries
	ch <- filterActive
}

func (f *kernelFilter) collect(ch chan<- prometheus.Metric) {
	f.mu.Lock()
	defer f.mu.Unlock()
	on := 0.0
	if f.state == filterOn {
		on = 1
	}
	ch <- prometheus.MustNewConstMetric(filterActive, prometheus.GaugeValue, on)
	for name, m := range f.dropped {
		ch <- prometheus.MustNewConstMetric(filterDropped, prometheus.CounterValue, float64(readTally(m)), name)
	}
	for name, set := range f.sets {
		if !name.allow {
			ch <- prometheus.MustNewConstMetric(filterEntries, prometheus.GaugeValue, float64(set.entries), name.scope)
		}
	}
}
