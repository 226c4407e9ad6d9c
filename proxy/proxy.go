// Package proxy is the data path: listeners, one connection's life, TLS,
// upstreams, relay.
package proxy

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"mailreeve/guard"
)

// A Server runs the listeners of one configuration.
type Server struct{}

// New prepares a server. Nothing listens yet. Certificates are read.
func New(cfg Config, g *guard.Guard, log *slog.Logger) (*Server, error) { return nil, nil }

// Listen opens the listeners; with old, those that stay are taken over.
func (s *Server) Listen() error { return nil }

// Reload puts a new configuration in place of the running one: listeners that
// stay keep their sockets, open connections live on. On an error nothing has
// changed.
func (s *Server) Reload(cfg Config) error { return nil }

// Shutdown stops accepting, says goodbye to the connections that wait for
// their client, and gives the rest until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return nil }

// Probe looks at every upstream once and tells what it found, for `check`.
func Probe(ctx context.Context, cfg Config) []ProbeResult { return nil }

// A ProbeResult is what a look at one address of an upstream showed.
type ProbeResult struct {
	Upstream string `json:"upstream"`
	Address  string `json:"address"`
	Protocol string `json:"protocol"`
	OK       bool   `json:"ok"`
	// Error says what is wrong and which line to change.
	Error        string   `json:"error,omitempty"`
	Host         string   `json:"host,omitempty"`
	Family       string   `json:"family,omitempty"`
	Capabilities []string `json:"capabilities,omitempty"`
}

// A Status is what `mailreeve status` shows of the data path.
type Status struct {
	Listeners []ListenerStatus `json:"listeners"`
	Upstreams []ProbeResult    `json:"upstreams"`
	// Connections is how many are open, Authenticated how many of those are
	// logged in.
	Connections   int `json:"connections"`
	Authenticated int `json:"authenticated"`
}

// A ListenerStatus is one listener's.
type ListenerStatus struct {
	Name        string `json:"name"`
	Address     string `json:"address"` // where it really listens
	Protocol    string `json:"protocol"`
	Scope       string `json:"scope"`
	Connections int    `json:"connections"`
}

// Status tells what is open and what the last probes found.
func (s *Server) Status() Status { return Status{} }

// Ready tells whether every listener is open and every upstream has an address
// that answers; if not, why.
func (s *Server) Ready() error { return nil }

// Describe and Collect make a Server a prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {}
