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
// places for handshakes, see handshake.
func (c *conn) secure() error {
	s := c.service.server
	h := &handshake{c: c, left: maxHandshake, until: time.Now().Add(time.Duration(c.service.timeouts.Handshake))}
	err := c.client.shakeHands(c.service.tls, h)
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
func (e *end) shakeHands(cfg *tls.Config, h *handshake) error {
	_ = e.tcp.SetDeadline(h.until)
	socket := &shaker{e.tcp, h}
	e.tls = tls.Server(socket, cfg)
	err := e.tls.Handshake()
	_ = e.tcp.SetDeadline(time.Time{})
	h.give()
	socket.handshake = nil
	return err
}

// A shaker is the socket below TLS, which it has as long as the connection
// lives. While hands are shaken each read is the handshake's affair.
type shaker struct {
	*quickConn
	handshake *handshake // nil once hands are shaken
}

// Read reads what the client says.
func (s *shaker) Read(p []byte) (int, error) {
	if s.handshake == nil {
		return s.quickConn.Read(p)
	}
	return s.handshake.read(s.quickConn, p)
}

// A handshake takes one of the places for handshakes when the client has said
// something, and gives it up when the client's next words are awaited: the places
// are for what we compute. Were one kept over the wait, 64 clients that say
// nothing would keep everybody out.
type handshake struct {
	c     *conn
	until time.Time
	left  int // bytes that the client may say yet
	holds bool
}

// maxHandshake bounds what a client may say in a handshake, in bytes. Real ones
// say 2 to 4 KiB; crypto/tls would keep 64.
const maxHandshake = 16 << 10

func (h *handshake) read(from *quickConn, p []byte) (int, error) {
	h.give()
	n, err := from.Read(p[:min(len(p), h.left)])
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

func (h *handshake) give() {
	if h.holds {
		h.holds = false
		h.c.service.handshakes.give()
	}
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
