package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// A conn is one client's connection from accept to close.
//
// At most three goroutines work on it: serve at first, then one that carries
// the client's bytes and, once the server is dialled, one that carries the
// server's. What they share is guarded by mu; a side is written to only with
// that side's pen in hand. mu is taken before a pen, and a pen is taken before
// mu is let go, so that what the conversation decided in order is written in
// order.
//
// Thousands of connections idle: its size is kept within 576 bytes, which is one
// of those that Go hands out, and a test holds it there. What only few
// connections have is behind a pointer.
type conn struct {
	service *service
	origin  guard.Origin
	peer    netip.AddrPort // the TCP peer: the client, or a trusted proxy
	named   *facts         // what the PROXY header says; nil if there was none
	began   int64          // in the clock of moment
	client  *end

	all, kin link // in the registry: of all, and of those of its address

	clientPen sync.Mutex
	serverPen sync.Mutex

	mu      sync.Mutex
	turn    sync.Cond // the server has said something, all of it has been shown, or the end has come
	conv    protocol.Conversation
	server  *end           // nil before the dial
	attempt *guard.Attempt // a credential that is with the server
	login   string         // of the credential that is or was with the server
	why     string         // how it ended
	remark  string         // what the conversation says about its end
	detail  error
	address string             // of the server
	cancel  context.CancelFunc // of what it waits for, see during; nil if nothing
	events  []protocol.Kind
	delay   time.Duration // how long the next answer is to be held back
	place   int64         // in the lot, while parked
	drip    *drip         // the sweeper's
	workers int32         // goroutines at work
	over    bool
	blind   bool
	left    bool // the client has gone; its last bytes have been shown
	present bool // see notePresence
	deaf    bool // a write to the client has failed
	early   bool // the client talked before our greeting, and this has not been told
	behind  bool // not all that was read from the server has been shown

	stranger bool // has not logged in, and counts for its network; the registry's
	unscored bool // a trusted peer's own connection: its conduct is no offence

	// What the sweeper and cuts look at without waiting for mu.
	phase         atomic.Uint32
	resting       atomic.Bool // the pumps are to leave, or have left
	talking       atomic.Bool // the conversation has begun
	cutLater      atomic.Bool // a ban fell where it may not be cut
	timedOut      atomic.Bool // its time is up and is being dealt with
	gate          gate
	asking        atomic.Bool // the guard is asked about a credential
	deciding      atomic.Bool // a guard's call is under way and will tell of a ban
	authenticated atomic.Bool
	delivered     atomic.Bool  // a message was accepted
	understood    atomic.Bool  // the client has said a complete line
	heard         atomic.Int64 // when the client last said something
	moved         atomic.Int64 // when either side last said something
	progressed    atomic.Int64 // when a MAIL or message was last accepted
	asked         atomic.Int64 // when the credential under way was sent
	bytesIn       atomic.Int64
	bytesOut      atomic.Int64
}

// serve is the first part of a connection's life, up to the greeting; the
// relay is the rest.
func (c *conn) serve(trusted bool, verdict protocol.Verdict) {
	defer c.leave()
	if trusted {
		var ok bool
		if verdict, ok = c.introduce(); !ok {
			return
		}
	}
	c.service.counts.accepted.Inc()
	if c.service.TLS == protocol.TLSImplicit {
		if err := c.secure(); err != nil {
			c.handshakeFailed(err)
			return
		}
	}
	if !c.greet(verdict) {
		return
	}
	if c.client.tls == nil {
		c.pumpClient()
		return
	}
	c.service.server.pumps.run(c.pumpClient) // this one is for handshakes
}

// introduce reads the PROXY header of a trusted peer and admits the client that
// it names. A LOCAL header is the peer's own connection, a health check: it is
// served, from the peer's address.
func (c *conn) introduce() (protocol.Verdict, bool) {
	s := c.service.server
	f, err := readHeader(c.client.tcp, time.Now().Add(time.Duration(c.service.timeouts.ProxyHeader)))
	switch {
	case errors.Is(err, errLocal):
		s.metrics.headers.WithLabelValues(c.service.Name, "local").Inc()
		c.unscored = true
		return protocol.Pass, true
	case err != nil:
		s.metrics.headers.WithLabelValues(c.service.Name, "bad").Inc()
		c.stop("proxy-header", err)
		return 0, false
	}
	s.metrics.headers.WithLabelValues(c.service.Name, "ok").Inc()
	c.named = &f
	client := judged(f.client.Addr())
	exempt := s.guard.Exempt(client)
	reason := s.conns.readdress(c, client, c.service.limits.bounds(exempt))
	if reason == "" && !exempt {
		reason = s.arrivals.refuses(c.origin.Addr, &c.service.limits, moment())
	}
	s.arrivals.report(c.origin, reason)
	// Asked once it is entered, where a new ban finds it.
	verdict := s.guard.Admit(&c.origin)
	if verdict == protocol.Banned {
		reason = "banned"
	}
	if reason != "" {
		s.metrics.refused.WithLabelValues(c.service.Name, reason).Inc()
		c.stop("refused-"+reason, nil)
		return 0, false
	}
	return verdict, true
}

// during gives a context for something that is waited for: it ends with the
// connection. It exists no longer than the wait, since most connections wait
// for their clients all their life. Only the goroutine that carries the
// client's bytes calls it, without mu.
func (c *conn) during() (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancel(c.service.server.ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel = cancel
	if c.over {
		cancel()
	}
	return ctx, func() {
		cancel()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cancel = nil
	}
}

// greet begins the conversation. It returns true with a worker entered that is
// to carry the client's bytes.
func (c *conn) greet(verdict protocol.Verdict) bool {
	svc := c.service
	c.early = c.earlyTalk()
	now := moment()
	c.heard.Store(now)
	c.moved.Store(now)
	c.progressed.Store(now)
	c.mu.Lock()
	c.conv = svc.proto.New(protocol.Setup{
		Hostname: svc.hostname, Offer: svc.upstream.offer.Load(),
		TLS: svc.TLS, Secure: svc.TLS == protocol.TLSImplicit,
		PlaintextAuth: svc.plaintextAuth(c.origin.Addr), NoAuth: !*svc.Auth,
		Soft: verdict == protocol.Soft, MasterSeparator: svc.MasterSeparator, Replies: svc.replies,
		XClient: c.xclient(),
	})
	step := c.conv.Start()
	c.talking.Store(true)
	c.workers++
	c.mu.Unlock()
	if !c.write(c.client, &c.clientPen, step.ToClient) {
		c.stop("client-gone", nil)
	}
	return true
}

// remote is the client.
func (c *conn) remote() netip.AddrPort {
	if c.named != nil {
		return c.named.client
	}
	return c.peer
}

// local is where the client connected to.
func (c *conn) local() netip.AddrPort {
	if c.named != nil {
		return c.named.local
	}
	return c.client.tcp.local()
}

// facts are what the server is told about the client.
func (c *conn) facts() *facts {
	f := &facts{client: c.remote(), local: c.local(), id: c.name()}
	if c.client.tls != nil {
		state := c.client.tls.ConnectionState()
		f.tls = &state
	}
	return f
}

// xclient is what the server is told of the client by XCLIENT, nil if it is
// told by other means.
func (c *conn) xclient() *protocol.ClientAddress {
	if c.service.upstream.ProxyProtocol != ProxyXClient {
		return nil
	}
	return &protocol.ClientAddress{Client: c.remote(), Local: c.local()}
}

// name is the connection's in the log, and in the server's (UNIQUE_ID).
func (c *conn) name() string {
	return c.service.server.run + "-" + strconv.FormatUint(c.origin.Conn, 36)
}

// stop ends the connection, remembering why for the log.
func (c *conn) stop(why string, err error) {
	c.mu.Lock()
	if !c.over {
		c.detail = err
	}
	c.mu.Unlock()
	c.end(why)
}

// end closes both sides. Whoever leaves last finishes. It may be called from
// anywhere, with no lock held, any number of times; the first reason counts.
func (c *conn) end(why string) {
	c.mu.Lock()
	first := !c.over
	if first {
		c.over, c.why = true, why
	}
	server := c.server
	idle := first && c.workers == 0
	c.turn.Broadcast()
	if c.cancel != nil {
		c.cancel()
	}
	c.mu.Unlock()
	closer := &c.service.server.closer
	closer.close(c.client.tcp)
	if server != nil {
		closer.close(server.tcp)
	}
	if idle {
		c.finish()
	}
}

// enter begins a goroutine's work, unless the connection is over.
func (c *conn) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	c.workers++
	return true
}

// leave ends a goroutine's work. A connection whose last worker has left is
// over. It is to be deferred: if the work panics, it says whose connection that
// was and lets the program end, for what was under a lock cannot be trusted any
// more, and taking mu here might wait forever.
func (c *conn) leave() {
	if p := recover(); p != nil {
		c.service.server.log.Error("a fault in mailreeve itself ends it, the trace follows: please report both",
			"conn", c.name(), "listener", c.service.Name, "client", c.remote().String())
		panic(p)
	}
	c.mu.Lock()
	c.workers--
	last := c.workers == 0 && c.over
	if c.workers == 0 && !c.over && c.resting.Load() && c.place == 0 {
		if err := c.service.server.lot.park(c); err != nil {
			c.stirLocked()
		}
	}
	c.mu.Unlock()
	if last {
		c.finish()
	}
}

// finish is the connection's last act: one log line.
func (c *conn) finish() {
	s := c.service.server
	if c.attempt != nil {
		out := protocol.Neutral
		if c.left {
			out = protocol.Left
		}
		s.guard.Settle(c.attempt, out, "")
		c.attempt = nil
	}
	c.note(c.leaving())
	c.client.in.free()
	if c.server != nil {
		c.server.in.free()
	}
	c.mu.Lock() // the lot may be waking it, for its end is a hang-up, too
	place := c.place
	c.mu.Unlock()
	if place != 0 {
		s.lot.take(place)
	}
	s.conns.remove(c)
	s.metrics.ended.WithLabelValues(c.service.Name, c.why).Inc()
	counts := &c.service.counts
	counts.open.Dec()
	counts.in.Add(float64(c.bytesIn.Load()))
	counts.out.Add(float64(c.bytesOut.Load()))
	s.log.LogAttrs(context.Background(), slog.LevelInfo, ConnectionEnded, c.attrs()...)
	s.running.Done()
}
