package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"mailreeve/protocol"
)

// An upstream is a mail server as one protocol's listeners know it. Its offer
// is learnt by probing.
type upstream struct {
	Upstream

	proto    *protocol.Protocol
	hostname string // what we call ourselves in a probe
	timeouts Timeouts
	tls      *tls.Config // to the server, nil for none
	log      *slog.Logger
	metrics  *metrics

	offer   atomic.Pointer[protocol.Offer]
	results []atomic.Pointer[ProbeResult] // beside Addresses
	probing chan struct{}                 // asks for a probe now
	looked  chan struct{}                 // closed after the first probe
}

// newUpstream reads what TLS to the server needs.
func newUpstream(u Upstream, p *protocol.Protocol, cfg *Config, m *metrics, log *slog.Logger) (*upstream, error) {
	up := &upstream{
		Upstream: u, proto: p, hostname: cfg.Hostname, timeouts: cfg.Timeouts,
		log: log.With("upstream", u.Name), metrics: m,
		results: make([]atomic.Pointer[ProbeResult], len(u.Addresses)),
		probing: make(chan struct{}, 1), looked: make(chan struct{}),
	}
	up.offer.Store(&protocol.Offer{Family: u.Family})
	if u.TLS == protocol.TLSNone {
		return up, nil
	}
	up.tls = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: u.Insecure}
	if u.CA != "" {
		pem, err := os.ReadFile(u.CA)
		if err != nil {
			return nil, fmt.Errorf("upstream %s: ca: %w", u.Name, err)
		}
		up.tls.RootCAs = x509.NewCertPool()
		if !up.tls.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("upstream %s: ca: no certificate in %s", u.Name, u.CA)
		}
	}
	return up, nil
}

// errNoServer says that no address of the upstream answers.
var errNoServer = errors.New("no server answers")

// dial connects to the first address that answers, those that failed lately
// last, and sends the PROXY header. The greeting is what the server has
// already said, if TLS had to be asked for.
func (u *upstream) dial(ctx context.Context, f *facts) (server *end, greeting []byte, address string, err error) {
	header, err := f.header(u.ProxyProtocol)
	if err != nil {
		return nil, nil, "", err
	}
	for _, i := range u.order() {
		server, greeting, err = u.connect(ctx, u.Addresses[i], header)
		if err == nil {
			u.metrics.dials.WithLabelValues(u.Name, "ok").Inc()
			return server, greeting, u.Addresses[i], nil
		}
		if ctx.Err() != nil {
			return nil, nil, "", ctx.Err()
		}
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			return nil, nil, "", fmt.Errorf("%w: %w", errNoServer, err) // our own want: the server may be well
		}
		u.metrics.dials.WithLabelValues(u.Name, "failed").Inc()
		u.failed(i, err)
	}
	return nil, nil, "", fmt.Errorf("%w: %w", errNoServer, err)
}

// order lists the addresses, those that answered last time first.
func (u *upstream) order() []int {
	var good, bad []int
	for i := range u.Addresses {
		if r := u.results[i].Load(); r != nil && !r.OK {
			bad = append(bad, i)
		} else {
			good = append(good, i)
		}
	}
	return append(good, bad...)
}

// failed remembers that a dial failed and asks for a probe.
func (u *upstream) failed(i int, err error) {
	u.note(i, &ProbeResult{Error: err.Error()})
	select {
	case u.probing <- struct{}{}:
	default:
	}
}

// connect makes one connection: socket, PROXY header, TLS. A server that has to
// be asked for TLS greets first, and may take its time for that.
func (u *upstream) connect(ctx context.Context, address string, header []byte) (*end, []byte, error) {
	dialling, cancel := context.WithTimeout(ctx, time.Duration(u.timeouts.Dial))
	defer cancel()
	tcp, err := dialTCP(dialling, address)
	if err != nil {
		return nil, nil, err
	}
	opening := dialling
	if u.TLS == protocol.TLSStartTLS {
		opening, cancel = context.WithTimeout(ctx, time.Duration(u.timeouts.Greeting))
		defer cancel()
	}
	e := newEnd(tcp)
	greeting, err := u.open(opening, e, address, header)
	if err != nil {
		e.Close()
		return nil, nil, fmt.Errorf("%s: %w", address, err)
	}
	return e, greeting, nil
}

// open sends the header, in one write because Postfix and Dovecot read it with
// one call, and brings TLS up.
func (u *upstream) open(ctx context.Context, e *end, address string, header []byte) ([]byte, error) {
	if len(header) > 0 {
		if _, err := e.tcp.Write(header); err != nil {
			return nil, err
		}
	}
	switch u.TLS {
	case protocol.TLSImplicit:
		return nil, u.startImplicitTLS(ctx, e, address, len(header) > 0)
	case protocol.TLSStartTLS:
		p := u.proto.Probe(protocol.ProbeSetup{Name: u.hostname, StartTLS: true, Stop: true})
		last, err := u.converse(ctx, e, address, p)
		return last.Greeting, err
	}
	return nil, nil
}

// startImplicitTLS names a fault that would else be looked for in the network:
// OpenSMTPD takes what it reads together with the header for a part of it.
func (u *upstream) startImplicitTLS(ctx context.Context, e *end, address string, withHeader bool) error {
	err := u.startTLS(ctx, e, address)
	if withHeader && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w; OpenSMTPD can lose a handshake that comes right behind a PROXY header: "+
			"let its port have tls instead of smtps, and upstream %q tls = \"starttls\"", err, u.Name)
	}
	return err
}

func (u *upstream) startTLS(ctx context.Context, e *end, address string) error {
	cfg := u.tls.Clone()
	cfg.ServerName = u.ServerName
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(address)
	}
	e.tls = tls.Client(e.tcp, cfg)
	if err := e.tls.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	return nil
}

// maxProbe bounds what a server may say in a probe.
const maxProbe = 64 << 10

// converse lets a Prober talk to the server until it is done.
func (u *upstream) converse(ctx context.Context, e *end, address string, p protocol.Prober) (protocol.ProbeStep, error) {
	stop := context.AfterFunc(ctx, func() { _ = e.tcp.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r := bufio.NewReaderSize(io.LimitReader(e, maxProbe), protocol.MaxLine)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			if ctx.Err() != nil {
				err = errSilent
			}
			return protocol.ProbeStep{}, err
		}
		step := p.Server(line)
		if step.Err != nil {
			return step, step.Err
		}
		if step.StartTLS {
			// Whatever came in clear behind the go-ahead is not the server's.
			if r.Buffered() > 0 || e.unread() > 0 {
				return step, errors.New("the server sent data behind its answer to STARTTLS: somebody may be injecting it")
			}
			if err := u.startTLS(ctx, e, address); err != nil {
				return step, err
			}
			r = bufio.NewReaderSize(io.LimitReader(e, maxProbe), protocol.MaxLine)
		}
		if len(step.Send) > 0 { // behind the handshake, if there was one
			if _, err := e.Write(step.Send); err != nil {
				return step, err
			}
		}
		if step.Done {
			if r.Buffered() > 0 {
				step.Greeting = append(step.Greeting, peekAll(r)...)
			}
			return step, nil
		}
	}
}

func peekAll(r *bufio.Reader) []byte {
	b, _ := r.Peek(r.Buffered())
	return b
}

// errSilent: the server took the connection and said nothing.
var errSilent = errors.New("the server says nothing")
