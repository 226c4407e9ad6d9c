package proxy

import (
	"errors"
	"io"
	"net"
	"testing"
)

// The peer is told at once and who reads is woken; descriptors are given back
// once there are many, and at a flush.
func TestCloser(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var cl closer
	defer cl.flush()
	end := func() *quickConn {
		t.Helper()
		q, err := dialTCP(t.Context(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		woken := make(chan error, 1)
		go func() {
			_, err := q.Read(make([]byte, 1))
			woken <- err
		}()
		cl.close(q)
		cl.close(q)
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the peer got %v, want the end", err)
		}
		if err := <-woken; !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("the reader got %v, want the end", err)
		}
		return q
	}
	closed := func(q *quickConn) bool {
		_, err := q.Read(make([]byte, 1))
		return errors.Is(err, net.ErrClosed)
	}
	first := end()
	for range closesAtOnce - 2 {
		end()
	}
	if closed(first) {
		t.Error("a descriptor was given back before there were many")
	}
	last := end()
	if !closed(first) || !closed(last) {
		t.Error("descriptors are kept though there are many")
	}
	other := end()
	cl.flush()
	if !closed(other) {
		t.Error("a flush has kept a descriptor")
	}
}
