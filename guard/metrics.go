package guard

import (
	"github.com/prometheus/client_golang/prometheus"

	"mailreeve/protocol"
)

// descs are the guard's metrics. No address and no login is ever a label: an
// attacker chooses them.
type descs struct {
	events, attempts, refusals, bans, bansTotal, tracked,
	evictions, inFlight, waiting, store, storePending, falseBans, falseRate, suspended, lost *prometheus.Desc
}

func newDescs() descs {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("mailreeve_"+name, help, labels, nil)
	}
	return descs{
		events:       d("events_total", "Events by kind and listener.", "kind", "listener"),
		attempts:     d("attempts_total", "Credentials that went to a server, by what it answered.", "outcome"),
		refusals:     d("attempts_refused_total", "Credentials that were refused before the server, by verdict.", "verdict"),
		bans:         d("bans", "Bans and guards in force.", "kind", "rule", "scope", "simulated"),
		bansTotal:    d("bans_total", "Bans and guards since the start.", "kind", "rule", "scope", "simulated"),
		tracked:      d("tracked", "Entries in the tables of counters.", "key"),
		evictions:    d("evictions_total", "Entries evicted from full tables.", "key"),
		inFlight:     d("attempts_in_flight", "Credentials that servers have not answered."),
		waiting:      d("attempts_waiting", "Credentials that wait for others to be settled."),
		store:        d("store_healthy", "Whether what is decided is made durable."),
		storePending: d("store_pending_records", "Records that wait to be written."),
		falseBans:    d("false_bans_total", "Bans of addresses that logged in within an hour."),
		falseRate:    d("false_ban_ratio", "False bans among all bans of addresses, an estimate."),
		suspended:    d("upstreams_suspended", "Upstreams in trouble, whose failures ban nobody."),
		lost:         d("source_addresses_lost", "Whether almost all failures come from one private address."),
	}
}

// Describe implements prometheus.Collector.
func (g *Guard) Describe(ch chan<- *prometheus.Desc) {
	d := newDescs()
	for _, desc := range []*prometheus.Desc{
		d.events, d.attempts, d.refusals, d.bans, d.bansTotal, d.tracked, d.evictions,
		d.inFlight, d.waiting, d.store, d.storePending, d.falseBans, d.falseRate, d.suspended, d.lost,
	} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (g *Guard) Collect(ch chan<- prometheus.Metric) {
	d := newDescs()
	counter := func(desc *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, v, labels...)
	}
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	events, outcomes, refusals, totals := g.stats.copies()
	for l, n := range events {
		counter(d.events, float64(n), string(l.kind), l.listener)
	}
	// What is finite is there before its first time: an alert on a rate must
	// not miss the first.
	for out := protocol.Success; out <= protocol.Left; out++ {
		counter(d.attempts, float64(outcomes[out]), out.String())
	}
	for v := protocol.Repeated; v <= protocol.Banned; v++ {
		counter(d.refusals, float64(refusals[v]), v.String())
	}
	for _, r := range g.set.Load().rules {
		if r.consequence != banned {
			totals[banLabel{r.consequence, r.name, "", r.dryRun}] += 0
		} else if r.scope != "" { // else it is wherever it happens
			totals[banLabel{r.consequence, r.name, r.scope, r.dryRun}] += 0
		}
	}
	for l, n := range totals {
		counter(d.bansTotal, float64(n), l.kind.String(), l.rule, l.scope, boolLabel(l.simulated))
	}
	for l, n := range g.activeBans() {
		gauge(d.bans, float64(n), l.kind.String(), l.rule, l.scope, boolLabel(l.simulated))
	}
	counts, evicted := g.memory.sizes()
	for i, name := range keyNames {
		gauge(d.tracked, float64(counts[i]), name)
		counter(d.evictions, float64(evicted[i]), name)
	}
	gauge(d.inFlight, float64(g.stats.inFlight.Load()))
	gauge(d.waiting, float64(g.queues.waiting()))
	pending, err := g.writer.status()
	gauge(d.store, boolValue(err == nil))
	gauge(d.storePending, float64(pending))
	if g.fleet != nil {
		g.fleet.collect(ch)
	}
	hits, total := g.stats.falseBans.read()
	counter(d.falseBans, float64(hits))
	gauge(d.falseRate, float64(hits)/float64(max(total, 1)))
	gauge(d.suspended, float64(len(g.trouble.suspendedNames())))
	gauge(d.lost, boolValue(g.lost.source().IsValid()))
}

// activeBans counts the sentences in force.
func (g *Guard) activeBans() map[banLabel]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sentences.counts()
}

func boolLabel(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
