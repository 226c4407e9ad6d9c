package proxy

import (
	"crypto/tls"
	"log/slog"
	"time"

	"mailreeve/protocol"
)

// ConnectionEnded is the message of the log line that each connection gets at
// its end.
const ConnectionEnded = "connection"

// attrs are the log line's. What a client chose (login) is quoted by slog.
func (c *conn) attrs() []slog.Attr {
	attrs := []slog.Attr{
		slog.String("conn", c.name()),
		slog.String("listener", c.service.Name),
		slog.String("client", c.remote().String()),
		slog.String("end", c.why),
		slog.Float64("seconds", float64((moment()-c.began)/int64(time.Millisecond))/1000),
		slog.Int64("in", c.bytesIn.Load()),
		slog.Int64("out", c.bytesOut.Load()),
	}
	if c.remark != "" {
		attrs = append(attrs, slog.String("remark", c.remark))
	}
	if c.peer != c.remote() {
		attrs = append(attrs, slog.String("proxy", c.peer.Addr().String()))
	}
	if c.login != "" {
		attrs = append(attrs, slog.String("login", c.login), slog.Bool("authenticated", c.authenticated.Load()))
	}
	if c.address != "" {
		attrs = append(attrs, slog.String("server", c.address))
	}
	if c.client.tls != nil {
		if state := c.client.tls.ConnectionState(); state.HandshakeComplete {
			attrs = append(attrs, slog.String("tls", tls.VersionName(state.Version)))
		}
	}
	if len(c.events) > 0 {
		attrs = append(attrs, slog.Any("events", eventCounts(c.events)))
	}
	if c.detail != nil && !isWeather(c.detail) {
		attrs = append(attrs, slog.String("error", c.detail.Error()))
	}
	return attrs
}

// eventCounts tells how often each kind was noticed.
func eventCounts(events []protocol.Kind) map[protocol.Kind]int {
	counts := map[protocol.Kind]int{}
	for _, k := range events {
		counts[k]++
	}
	return counts
}
