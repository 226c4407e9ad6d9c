package main

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"mailreeve/guard"
	"mailreeve/proxy"
)

// metrics are the program's own metrics and the registry of all: guard and
// proxy each are a collector.
type metrics struct {
	registry     *prometheus.Registry
	reloadOK     prometheus.Gauge
	reloadOKTime prometheus.Gauge
}

func newMetrics(g *guard.Guard, p *proxy.Server, events *eventHub) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		reloadOK: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mailreeve_config_last_reload_successful",
			Help: "Whether the last attempt to load the configuration succeeded.",
		}),
		reloadOKTime: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mailreeve_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration was last loaded successfully.",
		}),
	}
	v := buildVersion()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "mailreeve_build_info",
		Help: "What was built; always 1.",
		ConstLabels: prometheus.Labels{
			"version": v.Version, "revision": v.Revision, "modified": strconv.FormatBool(v.Modified), "goversion": v.Go,
		},
	})
	build.Set(1)
	m.registry.MustRegister(build, m.reloadOK, m.reloadOKTime, g, p,
		goCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(events.collectors()...)
	m.reloaded(nil)
	return m
}

// goCollector tells of the Go runtime, and besides what is usual what the last
// collection left alive: what is allocated has garbage in it, up to 32 MiB here,
// see memory.go.
func goCollector() prometheus.Collector {
	return collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(
		collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/gc/heap/live:bytes$`)}))
}

// collectors are the event log's metrics.
func (h *eventHub) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "mailreeve_event_log_written_total", Help: "Events written to the event log.",
		}, func() float64 { return float64(h.written.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "mailreeve_event_log_dropped_total", Help: "Events that the event log has lost.",
		}, func() float64 { return float64(h.dropped.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mailreeve_event_log_healthy", Help: "Whether the event log, if there is one, takes writes.",
		}, func() float64 {
			if h.failing.Load() {
				return 0
			}
			return 1
		}),
	}
}

// reloaded notes how a load of the configuration ended.
func (m *metrics) reloaded(err error) {
	if err != nil {
		m.reloadOK.Set(0)
		return
	}
	m.reloadOK.Set(1)
	m.reloadOKTime.SetToCurrentTime()
}

// handler serves /metrics, /healthz and /readyz.
func (m *metrics) handler(d *daemon) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", d.readyz)
	return mux
}

// readyz answers 200 while every listener is open and every upstream answers.
// A store in trouble is told in the body and is no reason to send mail
// elsewhere: what is enforced is enforced from memory.
func (d *daemon) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := d.proxy.Ready(); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "not ready:", err)
		return
	}
	fmt.Fprintln(w, "ready")
	s := d.guard.Status().Store
	if !s.Healthy {
		fmt.Fprintln(w, "but the store is in trouble:", s.Error)
	}
	if f := s.Shared; f != nil && !f.Connected {
		fmt.Fprintf(w, "but the shared store is away since %s, this node goes on alone: %s\n", f.AwaySince.Format(time.RFC3339), f.Error)
	}
}
