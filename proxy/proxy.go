// Package proxy is the data path: listeners, one connection's life, TLS,
// upstreams, relay.
//
// A connection is accepted and admitted (listener.go), lives through conn.go,
// which reads as the table of contents of that life, and is relayed (relay.go)
// line by line as its protocol's Conversation decides. Sockets are this
// package's; what a line means is package protocol's; who may do what is
// package guard's.
package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// A Server runs the listeners of one configuration, and of the next one after
// a reload.
type Server struct {
	guard   *guard.Guard
	log     *slog.Logger
	metrics *metrics
	conns   *registry
	lot     *lot
	pipes   pipes
	closer  closer
	// Who carries connections' bytes, and who shakes hands.
	pumps, handshakers *crew
	filter             *kernelFilter
	tlsBuffers         tlsBuffers
	arrivals           *arrivals
	store              SocketStore
	greeted            greeted
	run                string // tells this run's connections from another's, in logs

	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup // connections, probes, sweeper

	nextConn     atomic.Uint64
	acceptWarned atomic.Int64
	draining     atomic.Bool

	mu        sync.Mutex // guards a change of configuration
	current   *plan
	listeners map[string]*listener // by address
}

// A plan is a configuration made ready: everything that can fail has been
// tried, nothing has been changed.
type plan struct {
	cfg        Config
	certs      *certs
	upstreams  map[upstreamKey]*upstream
	services   []*service
	handshakes slots
	replies    *protocol.ReplyTable
	filter     filterPlan

	stop context.CancelFunc // of the probes and the certificate watch
}

// New prepares a server: certificates are read, nothing listens yet.
func New(cfg Config, g *guard.Guard, log *slog.Logger) (*Server, error) {
	lot, err := newLot()
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{lot: lot, pipes: make(pipes, maxPipes), pumps: newCrew(ctx.Done()), handshakers: newCrew(ctx.Done()), guard: g, log: log, metrics: newMetrics(), conns: newRegistry(), run: strconv.FormatInt(time.Now().Unix(), 36),
		ctx: ctx, stop: stop, listeners: map[string]*listener{}, filter: newKernelFilter(g.InForce, log), arrivals: newArrivals()}
	if s.tlsBuffers, err = findTLSBuffers(); err != nil {
		log.Warn("idle TLS connections keep their read buffers", "error", err)
	}
	p, err := s.prepare(cfg)
	if err != nil {
		stop()
		lot.close()
		return nil, err
	}
	s.current = p
	g.Subscribe(s.changed)
	return s, nil
}

// prepare makes a plan.
func (s *Server) prepare(cfg Config) (*plan, error) {
	if err := cfg.Normalize(); err != nil {
		return nil, err
	}
	p := &plan{cfg: cfg, handshakes: make(slots, cfg.Limits.Handshakes)}
	var err error
	if p.replies, err = protocol.CompileRows(cfg.Rows); err != nil {
		return nil, err
	}
	if p.certs, err = loadCerts(cfg.Certificates); err != nil {
		return nil, err
	}
	if p.certs.rsaOnly() {
		s.log.Warn("only RSA certificates are configured: each handshake costs several times an ECDSA one")
	}
	var old map[upstreamKey]*upstream
	if s.current != nil {
		old = s.current.upstreams
	}
	if p.upstreams, err = buildUpstreams(&p.cfg, s.metrics, s.log, old); err != nil {
		return nil, err
	}
	for _, l := range p.cfg.Listeners {
		svc, err := s.newService(l, p)
		if err != nil {
			return nil, err
		}
		p.services = append(p.services, svc)
	}
	return p, nil
}

func (s *Server) newService(l Listener, p *plan) (*service, error) {
	svc := &service{
		Listener: l, server: s, proto: protocol.Lookup(l.Protocol),
		upstream: p.upstreams[upstreamKey{l.Upstream, l.Protocol}],
		trusted:  new(bart.Lite), timeouts: p.cfg.Timeouts, limits: p.cfg.Limits,
		replies: p.replies, hostname: p.cfg.Hostname, handshakes: p.handshakes,
	}
	svc.counts = s.metrics.of(l.Name)
	if l.TLS != protocol.TLSNone {
		svc.tls = p.certs.config(svc.proto.ALPN, *l.OldCiphers)
	}
	trusted, err := parsePrefixes(l.TrustedProxies)
	if err != nil {
		return nil, err
	}
	for _, t := range trusted {
		svc.trusted.Insert(t)
	}
	return svc, nil
}

// Listen opens the listeners and begins to serve.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropUnwanted(s.current.services)
	opened, err := s.open(s.current)
	if err != nil {
		return err
	}
	s.countDescriptors()
	s.running.Add(1)
	go s.sweep()
	s.running.Go(func() { s.lot.watch(s.ctx, s.log) })
	s.running.Go(func() { s.arrivals.tell(s.ctx, s.guard) })
	s.take(s.current, opened)
	return nil
}

// Reload puts a new configuration in place of the running one: listeners that
// stay keep their sockets, open connections live on. On an error nothing has
// changed.
func (s *Server) Reload(cfg Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.prepare(cfg)
	if err != nil {
		return err
	}
	opened, err := s.open(p)
	if err != nil {
		return err
	}
	s.current.stop()
	s.take(p, opened)
	return nil
}

// open makes a plan's kernel filter and opens its sockets. On an error nothing
// has changed.
func (s *Server) open(p *plan) (opened map[string]*listener, err error) {
	if p.filter, err = s.filter.prepare(p.cfg.Enforce.KernelFilter, p.services); err != nil {
		return nil, err
	}
	if opened, err = s.openMissing(p); err != nil {
		s.filter.abandon(p.filter)
	}
	return opened, err
}

// openMissing opens the sockets that a plan needs and are not open yet. On an
// error it closes those it opened.
func (s *Server) openMissing(p *plan) (map[string]*listener, error) {
	opened := map[string]*listener{}
	for i, svc := range p.services {
		if s.listeners[svc.Address] != nil || opened[svc.Address] != nil {
			continue
		}
		var err error
		l := s.inherit(svc.Address)
		if l == nil {
			l, err = openListener(s.ctx, svc.Address)
		}
		if err != nil {
			for _, o := range opened {
				o.file.Close()
			}
			return nil, &ConfigError{Element{"listener", i, "address"}, err.Error()}
		}
		opened[svc.Address] = l
	}
	return opened, nil
}

// take brings a plan into force. It cannot fail.
func (s *Server) take(p *plan, opened map[string]*listener) {
	ctx, stop := context.WithCancel(s.ctx)
	p.stop = stop
	s.current = p
	wanted := map[string]bool{}
	for _, svc := range p.services {
		wanted[svc.Address] = true
		l := s.listeners[svc.Address]
		if l == nil {
			l = opened[svc.Address]
			s.listeners[svc.Address] = l
		}
		l.service.Store(svc)
	}
	s.filter.enter(p.filter, p.services, s.listeners)
	for _, u := range p.upstreams {
		s.running.Go(func() { u.keepProbing(ctx) })
	}
	for _, l := range opened {
		s.keep(l)
		s.running.Go(func() {
			l.service.Load().upstream.awaitLook(s.ctx)
			l.accept(s)
		})
	}
	for address, l := range s.listeners {
		if !wanted[address] {
			s.unkeep(storeName(address))
			l.file.Close()
			<-l.done
			delete(s.listeners, address)
		}
	}
	s.running.Go(func() { p.certs.watch(ctx, s.log) })
}

// Shutdown stops accepting, says goodbye to the connections whose turn it is,
// and lets the rest finish until ctx ends; then it closes them.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	for _, l := range s.listeners {
		l.file.Close()
	}
	for _, l := range s.listeners {
		<-l.done
	}
	s.listeners = map[string]*listener{}
	s.filter.close()
	s.mu.Unlock()
	s.draining.Store(true)
	err := s.drain(ctx)
	s.stop()
	for _, c := range s.conns.list(nil) {
		c.end("shutdown")
	}
	s.running.Wait()
	s.pumps.working.Wait()
	s.handshakers.working.Wait()
	s.closer.flush()
	s.pipes.close()
	return err
}

// changed is called by the guard before a deciding call of its returns.
func (s *Server) changed(ch guard.Change) {
	s.filter.changed(ch)
	if ch.Kind == guard.BanAdded {
		s.cutBanned(ch)
	}
}
