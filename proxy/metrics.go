package proxy

import "github.com/prometheus/client_golang/prometheus"

// metrics are the data path's own. Labels are names from the configuration and
// words from the code, never what a client sent.
type metrics struct {
	accepted   *prometheus.CounterVec
	refused    *prometheus.CounterVec
	open       *prometheus.GaugeVec
	ended      *prometheus.CounterVec
	handshakes *prometheus.CounterVec
	dials      *prometheus.CounterVec
	upstreamUp *prometheus.GaugeVec
	bytes      *prometheus.CounterVec
	headers    *prometheus.CounterVec
}

// counts are a listener's own of the metrics: those that every connection
// changes, so that their labels are looked up once.
type counts struct {
	accepted prometheus.Counter
	banned   prometheus.Counter // refused for a ban
	open     prometheus.Gauge
	in, out  prometheus.Counter // bytes
}

func (m *metrics) of(listener string) counts {
	return counts{
		accepted: m.accepted.WithLabelValues(listener),
		banned:   m.refused.WithLabelValues(listener, "banned"),
		open:     m.open.WithLabelValues(listener),
		in:       m.bytes.WithLabelValues(listener, "in"),
		out:      m.bytes.WithLabelValues(listener, "out"),
	}
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "mailreeve", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "mailreeve", Name: name, Help: help}, labels)
	}
	return &metrics{
		accepted:   counter("connections_total", "Connections that were let in.", "listener"),
		refused:    counter("connections_refused_total", "Connections dropped at accept, by reason (banned, address-limit, network-limit, limit, rate, network-rate).", "listener", "reason"),
		open:       gauge("connections", "Connections that are open.", "listener"),
		ended:      counter("connections_ended_total", "Connections that ended, by reason.", "listener", "reason"),
		handshakes: counter("tls_handshakes_total", "TLS handshakes with clients, by version (or failed).", "listener", "result"),
		dials:      counter("upstream_dials_total", "Connections to servers, by result (ok, failed).", "upstream", "result"),
		upstreamUp: gauge("upstream_up", "Whether the last look at a server's address succeeded.", "upstream", "address"),
		bytes:      counter("relayed_bytes_total", "Bytes relayed, by direction (in: from clients, out: to clients).", "listener", "direction"),
		headers:    counter("proxy_headers_total", "PROXY headers of trusted peers, by result (ok, local, bad).", "listener", "result"),
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.accepted, m.refused, m.open, m.ended, m.handshakes,
		m.dials, m.upstreamUp, m.bytes, m.headers}
}

// waiting is how many goroutines wait for a connection.
func (s *Server) waiting() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "mailreeve", Name: "goroutines_waiting",
		Help: "Goroutines, of go_goroutines, that have no connection and wait for one."},
		func() float64 { return float64(s.pumps.idle() + s.handshakers.idle()) })
}

// Describe makes a Server a prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range s.metrics.all() {
		c.Describe(ch)
	}
	s.waiting().Describe(ch)
	s.filter.describe(ch)
}

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	for _, c := range s.metrics.all() {
		c.Collect(ch)
	}
	s.waiting().Collect(ch)
	s.filter.collect(ch)
}
