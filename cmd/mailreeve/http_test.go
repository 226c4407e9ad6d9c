package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// A pipeListener hands out what it is given.
type pipeListener chan net.Conn

func (l pipeListener) Accept() (net.Conn, error) {
	c, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l pipeListener) Close() error   { close(l); return nil }
func (l pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// Whoever reaches the metrics' port can take no more descriptors than its bound;
// who waits comes in when one leaves.
func TestHTTPConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipes := make(pipeListener, 3)
		for range 3 {
			c, _ := net.Pipe()
			pipes <- c
		}
		l := boundListener(pipes, 2)
		accepted := make(chan net.Conn, 3)
		ended := make(chan error, 1)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					ended <- err
					return
				}
				accepted <- c
			}
		}()
		synctest.Wait()
		if n := len(accepted); n != 2 {
			t.Fatalf("%d connections were accepted, want 2", n)
		}
		first := <-accepted
		first.Close()
		first.Close() // as http.Server may
		synctest.Wait()
		if n := len(accepted); n != 2 {
			t.Errorf("after one left there are %d, want 2", n)
		}
		l.Close() // also where it waits for a place
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept ends with %v", err)
		}
	})
}

// An Accept that fails, as it does without a descriptor to spare, takes no place.
func TestHTTPFailedAcceptsTakeNoPlace(t *testing.T) {
	pipes := make(pipeListener)
	close(pipes)
	l := boundListener(pipes, 1)
	for range 3 {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) || len(l.open) != 0 {
			t.Fatalf("error %v, %d places taken", err, len(l.open))
		}
	}
}

// A request that does not come to its end is ended, in its headers and in its
// body.
func TestHTTPRequestsAreBoundedInTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	defer func() {
		cancel()
		d.running.Wait()
	}()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	})
	const short = 100 * time.Millisecond
	d.serveHTTP(ctx, l, h, httpBounds{header: short, idle: time.Hour, request: 2 * short, answer: time.Hour, connections: 4})
	for _, unfinished := range []string{"GET / HT", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, unfinished)
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, bufio.NewReader(c)); err != nil {
			t.Errorf("after %q: %v, want the end of the connection", unfinished, err)
		}
	}
}
