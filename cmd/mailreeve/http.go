package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// An httpBounds bounds what clients of one of our HTTP listeners may take from
// the program, which needs its descriptors for mail.
type httpBounds struct {
	// header bounds the time until a request's headers are there, and idle how
	// long a connection may wait for its next request.
	header, idle time.Duration
	// request and answer bound the time for all of a request, and for that and
	// its answer; 0: none.
	request, answer time.Duration
	// connections bounds how many there are at once; 0: any number.
	connections int
}

// adminBounds are for who may do anything with us anyway: a ban list of a
// million, or a stream of events, takes its time.
func adminBounds() httpBounds {
	return httpBounds{header: 5 * time.Second, idle: time.Minute}
}

// metricsBounds are for who reaches the port: it may be open to more than the
// monitoring.
func metricsBounds() httpBounds {
	return httpBounds{header: 5 * time.Second, idle: time.Minute,
		request: 10 * time.Second, answer: 30 * time.Second, connections: 64}
}

// serveHTTP serves until ctx ends; open requests are cut then.
func (d *daemon) serveHTTP(ctx context.Context, l net.Listener, h http.Handler, b httpBounds) {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: b.header,
		ReadTimeout:       b.request,
		WriteTimeout:      b.answer,
		IdleTimeout:       b.idle,
		MaxHeaderBytes:    maxRequest,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	if b.connections > 0 {
		l = boundListener(l, b.connections)
	}
	d.running.Go(func() {
		<-ctx.Done()
		server.Close()
	})
	d.running.Go(func() {
		// A listener is closed only by us, where the start has failed.
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			d.log.Error("admin: stopped serving", "address", l.Addr().String(), "error", err)
		}
	})
}

// A boundedListener accepts as many connections as may be open at once; others
// wait in the kernel, where they cost no descriptor.
type boundedListener struct {
	net.Listener
	open   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func boundListener(l net.Listener, most int) *boundedListener {
	return &boundedListener{Listener: l, open: make(chan struct{}, most), closed: make(chan struct{})}
}

func (l *boundedListener) Accept() (net.Conn, error) {
	select {
	case l.open <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.open
		return nil, err
	}
	return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { <-l.open })}, nil
}

func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// A boundedConn gives its place back when it is closed.
type boundedConn struct {
	net.Conn
	leave func()
}

func (c *boundedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
