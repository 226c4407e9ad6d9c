package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"mailreeve/protocol"
)

// probeTimeout bounds a look at one address. It is longer than the 5 s after
// which Postfix gives up on a PROXY header, and postscreen's 6 s greeting.
const probeTimeout = 10 * time.Second

// keepProbing looks at the upstream at once, at intervals, and after a failed
// dial, until ctx ends.
func (u *upstream) keepProbing(ctx context.Context) {
	tick := time.NewTicker(time.Duration(u.ProbeInterval))
	defer tick.Stop()
	u.probe(ctx)
	close(u.looked)
	for ; ; u.probe(ctx) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-u.probing:
			// Many connections may fail at once: one look a second will do.
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}
}

// firstLook is how long new listeners wait for the first probe, so that the
// first clients are offered what the server offers.
const firstLook = 2 * time.Second

// awaitLook waits for the first probe, but not for long.
func (u *upstream) awaitLook(ctx context.Context) {
	timer := time.NewTimer(firstLook)
	defer timer.Stop()
	select {
	case <-u.looked:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// AwaitLook waits until every upstream has been looked at once, but not for
// long: then the listeners accept.
func (s *Server) AwaitLook(ctx context.Context) {
	s.mu.Lock()
	upstreams := s.current.upstreams
	s.mu.Unlock()
	var all sync.WaitGroup
	for _, u := range upstreams {
		all.Go(func() { u.awaitLook(ctx) })
	}
	all.Wait()
}

// ready says why nobody can be served.
func (u *upstream) ready() error {
	err := errors.New("it has not been looked at yet")
	for i := range u.results {
		switch r := u.results[i].Load(); {
		case r == nil:
		case r.OK:
			return nil
		default:
			err = errors.New("no address answers as it should")
		}
	}
	return err
}

// probe looks at every address and remembers what it found.
func (u *upstream) probe(ctx context.Context) {
	var all sync.WaitGroup
	offers := make([]*protocol.Offer, len(u.Addresses))
	for i, address := range u.Addresses {
		all.Go(func() {
			offer, err := u.look(ctx, address)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				u.note(i, &ProbeResult{Error: err.Error()})
				return
			}
			offers[i] = offer
			u.note(i, &ProbeResult{OK: true, Host: offer.Host, Family: offer.Family, Capabilities: offer.Capabilities})
		})
	}
	all.Wait()
	if i := slices.IndexFunc(offers, func(o *protocol.Offer) bool { return o != nil }); i >= 0 {
		u.learn(offers[i])
	}
}

// learn takes over what a server offers.
func (u *upstream) learn(offer *protocol.Offer) {
	o := *offer
	if u.Family != "" {
		o.Family = u.Family
	}
	old := u.offer.Load()
	if old.Host == o.Host && old.Family == o.Family && slices.Equal(old.Capabilities, o.Capabilities) {
		return
	}
	u.offer.Store(&o)
	if old.Host != "" {
		u.log.Info("server offers something else than before", "protocol", u.proto.Name,
			"host", o.Host, "capabilities", o.Capabilities)
	}
}

// note remembers an address's state and logs when it changes.
func (u *upstream) note(i int, r *ProbeResult) {
	r.Upstream, r.Address, r.Protocol = u.Name, u.Addresses[i], u.proto.Name
	old := u.results[i].Swap(r)
	up := 0.0
	if r.OK {
		up = 1
	}
	u.metrics.upstreamUp.WithLabelValues(u.Name, r.Address).Set(up)
	switch {
	case !r.OK && (old == nil || old.OK):
		u.log.Warn("server does not answer as it should", "address", r.Address, "protocol", r.Protocol, "error", r.Error)
	case r.OK && old != nil && !old.OK:
		u.log.Info("server answers again", "address", r.Address, "protocol", r.Protocol)
	case r.OK && old == nil:
		u.log.Info("server answers", "address", r.Address, "protocol", r.Protocol, "host", r.Host, "family", r.Family)
	}
}

// look makes one dialogue of our own. The header is a client's with TLS, from
// our own address: with LOCAL, Dovecot would say LOGINDISABLED, and Postfix
// refuses v1's UNKNOWN.
func (u *upstream) look(ctx context.Context, address string) (*protocol.Offer, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	dialCtx, cancelDial := context.WithTimeout(ctx, time.Duration(u.timeouts.Dial))
	defer cancelDial()
	tcp, err := dialTCP(dialCtx, address)
	if err != nil {
		return nil, err
	}
	defer tcp.Close()
	e := newEnd(tcp)
	header, err := u.ownFacts(e).header(u.ProxyProtocol)
	if err != nil {
		return nil, err
	}
	if len(header) > 0 {
		if _, err := e.tcp.Write(header); err != nil {
			return nil, u.explain(address, err)
		}
	}
	if u.TLS == protocol.TLSImplicit {
		if err := u.startImplicitTLS(dialCtx, e, address, len(header) > 0); err != nil {
			return nil, u.explain(address, err)
		}
	}
	step, err := u.converse(ctx, e, address, u.proto.Probe(protocol.ProbeSetup{
		Name: u.hostname, StartTLS: u.TLS == protocol.TLSStartTLS, XClient: u.ProxyProtocol == ProxyXClient}))
	if err != nil {
		return nil, u.explain(address, err)
	}
	return step.Offer, nil
}

func (u *upstream) ownFacts(e *end) *facts {
	f := &facts{
		client: e.tcp.local(),
		local:  e.tcp.peer(),
	}
	if u.ProxyProtocol == ProxyV2 {
		f.tls = &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}
	}
	return f
}

// explain makes a failed probe's error a sentence that says what to change.
func (u *upstream) explain(address string, err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, errSilent) && !isWeather(err) {
		return fmt.Errorf("%s: %w", address, err)
	}
	if u.ProxyProtocol == ProxyNone || u.ProxyProtocol == ProxyXClient {
		return fmt.Errorf("%s: %w; if it waits for a PROXY header (Postfix: smtpd_upstream_proxy_protocol=haproxy, "+
			"Dovecot: haproxy = yes), set proxy-protocol = \"v2\" for upstream %q", address, err, u.Name)
	}
	return fmt.Errorf("%s: %w; it was sent a PROXY %s header: in Dovecot the inet_listener needs haproxy = yes and "+
		"haproxy_trusted_networks our address, in Postfix the service needs -o smtpd_upstream_proxy_protocol=haproxy; "+
		"or set proxy-protocol = \"none\" for upstream %q", address, err, u.ProxyProtocol, u.Name)
}

// Probe looks at every upstream once, as the protocols of its listeners see
// it, and tells what it found. cfg must be normalized.
func Probe(ctx context.Context, cfg Config) []ProbeResult {
	quiet := slog.New(slog.DiscardHandler)
	ups, err := buildUpstreams(&cfg, newMetrics(), quiet, nil)
	if err != nil {
		return []ProbeResult{{Error: err.Error()}}
	}
	var all sync.WaitGroup
	for _, u := range ups {
		all.Go(func() { u.probe(ctx) })
	}
	all.Wait()
	return results(ups)
}

// results gathers what the last probes and dials showed.
func results(ups map[upstreamKey]*upstream) []ProbeResult {
	var list []ProbeResult
	for _, u := range ups {
		for i := range u.results {
			if r := u.results[i].Load(); r != nil {
				list = append(list, *r)
			}
		}
	}
	slices.SortFunc(list, func(a, b ProbeResult) int {
		for _, c := range [][2]string{{a.Upstream, b.Upstream}, {a.Protocol, b.Protocol}, {a.Address, b.Address}} {
			if c[0] != c[1] {
				if c[0] < c[1] {
					return -1
				}
				return 1
			}
		}
		return 0
	})
	return list
}

// An upstreamKey is an upstream as one protocol knows it.
type upstreamKey struct{ name, protocol string }

// buildUpstreams makes the upstreams that the listeners use, taking over what
// an old one with the same settings has learnt.
func buildUpstreams(cfg *Config, m *metrics, log *slog.Logger, old map[upstreamKey]*upstream) (map[upstreamKey]*upstream, error) {
	ups := map[upstreamKey]*upstream{}
	for _, l := range cfg.Listeners {
		key := upstreamKey{l.Upstream, l.Protocol}
		if ups[key] != nil {
			continue
		}
		i := slices.IndexFunc(cfg.Upstreams, func(u Upstream) bool { return u.Name == l.Upstream })
		u, err := newUpstream(cfg.Upstreams[i], protocol.Lookup(l.Protocol), cfg, m, log)
		if err != nil {
			return nil, err
		}
		if was := old[key]; was != nil {
			u.offer.Store(was.offer.Load())
			if u.Family != "" {
				u.learn(was.offer.Load())
			}
		}
		ups[key] = u
	}
	return ups, nil
}
