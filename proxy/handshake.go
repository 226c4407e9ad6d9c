package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"mailreeve/protocol"
)

// secure brings TLS up, under a deadline. What it costs us is bounded by the
// places for handshakes, see shaker.
func (c *conn) secure() error {
	s := c.service.server
	h := &shaker{quickConn: c.client.tcp, c: c, left: maxHandshake,
		until: time.Now().Add(time.Duration(c.service.timeouts.Handshake))}
	err := c.client.shakeHands(c.service.tls, h)
	h.done()
	result := "failed"
	if err == nil {
		result = tls.VersionName(c.client.tls.ConnectionState().Version)
	} else if !isWeather(err) && !isTimeout(err) && !errors.Is(err, errNoSlot) {
		c.note(protocol.TLSFailure)
	}
	s.metrics.handshakes.WithLabelValues(c.service.Name, result).Inc()
	return err
}

// shakeHands runs the server's side of a TLS handshake. Close ends it as well.
func (e *end) shakeHands(cfg *tls.Config, h *shaker) error {
	_ = e.tcp.SetDeadline(h.until)
	e.tls = tls.Server(h, cfg)
	err := e.tls.Handshake()
	_ = e.tcp.SetDeadline(time.Time{})
	return err
}

// A shaker is the socket of a handshake. It takes one of the places for
// handshakes when the client has said something, and gives it up when the
// client's next words are awaited: the places are for what we compute. Were one
// kept over the wait, 64 clients that say nothing would keep everybody out.
type shaker struct {
	*quickConn
	c     *conn // nil once hands are shaken
	until time.Time
	left  int // bytes that the client may say yet
	holds bool
}

// maxHandshake bounds what a client may say in a handshake, in bytes. Real ones
// say 2 to 4 KiB; crypto/tls would keep 64.
const maxHandshake = 16 << 10

// Read reads what the client says.
func (h *shaker) Read(p []byte) (int, error) {
	if h.c == nil {
		return h.quickConn.Read(p)
	}
	h.give()
	n, err := h.quickConn.Read(p[:min(len(p), h.left)])
	if err != nil {
		return n, err
	}
	if h.left -= n; h.left == 0 {
		return 0, fmt.Errorf("client's handshake has more than %d bytes", maxHandshake)
	}
	if err := h.c.awaitSlot(time.Until(h.until)); err != nil {
		return 0, err
	}
	h.holds = true
	return n, nil
}

func (h *shaker) give() {
	if h.holds {
		h.holds = false
		h.c.service.handshakes.give()
	}
}

// done makes it the plain socket that the rest of the connection needs.
func (h *shaker) done() {
	h.give()
	h.c = nil
}

// awaitSlot waits until there is a place for a handshake.
func (c *conn) awaitSlot(limit time.Duration) error {
	if c.service.handshakes.tryTake() {
		return nil
	}
	ctx, done := c.during()
	defer done()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return c.service.handshakes.take(ctx)
}

// handshakeFailed ends a connection that did not come to TLS. Who let the time
// run out has loitered.
func (c *conn) handshakeFailed(err error) {
	why := "tls"
	c.mu.Lock()
	if isTimeout(err) && !c.over {
		c.tellEvent(protocol.Event{Kind: protocol.Loitering})
		why = "timeout-tls"
	}
	c.mu.Unlock()
	c.stop(why, err)
}
