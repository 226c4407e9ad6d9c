package proxy

import (
	"errors"
	"fmt"
	"net"
)

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
	// KernelFilter is what becomes of banned addresses before accept.
	KernelFilter KernelFilterStatus `json:"kernel_filter"`
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
	// DroppedSYNs is how many the kernel filter dropped.
	DroppedSYNs uint64 `json:"dropped_syns"`
}

// Status tells what is open and what the last probes found.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Upstreams: results(s.current.upstreams)}
	var dropped map[string]uint64
	st.KernelFilter, dropped = s.filter.status()
	open := map[string]int{}
	for _, c := range s.conns.list(nil) {
		st.Connections++
		open[c.service.Name]++
		if c.authenticated.Load() {
			st.Authenticated++
		}
	}
	for _, svc := range s.current.services {
		ls := ListenerStatus{Name: svc.Name, Address: svc.Address, Protocol: svc.Protocol,
			Scope: svc.Scope, Connections: open[svc.Name], DroppedSYNs: dropped[svc.Name]}
		if l := s.listeners[svc.Address]; l != nil {
			ls.Address = l.bound.String()
		}
		st.Listeners = append(st.Listeners, ls)
	}
	return st
}

// Addresses gives where the listeners listen, by name.
func (s *Server) Addresses() map[string]net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	addrs := map[string]net.Addr{}
	for _, svc := range s.current.services {
		if l := s.listeners[svc.Address]; l != nil {
			addrs[svc.Name] = l.bound
		}
	}
	return addrs
}

// Ready tells whether every listener is open and every upstream has an address
// that answers; if not, why.
func (s *Server) Ready() error {
	if s.draining.Load() {
		return errors.New("shutting down")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.listeners) == 0 {
		return errors.New("not listening yet")
	}
	for key, u := range s.current.upstreams {
		if err := u.ready(); err != nil {
			return fmt.Errorf("upstream %s (%s): %w", key.name, key.protocol, err)
		}
	}
	return nil
}
