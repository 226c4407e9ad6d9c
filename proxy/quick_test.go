package proxy

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// quickPair is a quickConn and the plain connection at its other end.
func quickPair(t testing.TB) (*quickConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	q := takeOver(t, near)
	t.Cleanup(func() { q.Close(); far.Close() })
	return q, far.(*net.TCPConn)
}

// takeOver makes a quickConn of what package net has made.
func takeOver(t testing.TB, c net.Conn) *quickConn {
	t.Helper()
	q, err := quickConnOf(c)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// Much more than the sockets hold goes through whole, both ways at once.
func TestQuickConnCarriesAll(t *testing.T) {
	q, far := quickPair(t)
	sent := make([]byte, 20<<20)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	echoed := make(chan error, 1)
	go func() {
		_, err := io.Copy(far, far)
		far.CloseWrite()
		echoed <- err
	}()
	wrote := make(chan error, 1)
	go func() {
		_, err := q.Write(sent)
		q.CloseWrite()
		wrote <- err
	}()
	got, err := io.ReadAll(struct{ io.Reader }{q})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-wrote, <-echoed); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("got %d bytes, and not those that were sent", len(got))
	}
}

// A deadline that passes is a timeout, after which the connection goes on.
func TestQuickConnOutlivesDeadline(t *testing.T) {
	q, far := quickPair(t)
	if err := q.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	_, err := q.Read(buf)
	// crypto/tls goes on after an error only if it says that it is temporary.
	var timeout interface {
		Timeout() bool
		Temporary() bool
	}
	if !isTimeout(err) || !errors.As(err, &timeout) || !timeout.Timeout() || !timeout.Temporary() {
		t.Fatalf("got %v, want a temporary timeout", err)
	}
	if err := q.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	if n, err := q.Read(buf); string(buf[:n]) != "late" || err != nil {
		t.Errorf("got %q, %v", buf[:n], err)
	}
}

// An end, or a reset, that has come with the last bytes is seen behind them: it
// is no event of its own.
func TestQuickConnSeesTheEndThatCameWithBytes(t *testing.T) {
	for name, how := range map[string]struct {
		linger int // seconds; 0 resets, -1 closes in the ordinary way
		want   error
	}{
		"end":   {-1, io.EOF},
		"reset": {0, syscall.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			q, far := quickPair(t)
			if err := far.SetLinger(how.linger); err != nil {
				t.Fatal(err)
			}
			if _, err := far.Write([]byte("421 bye\r\n")); err != nil {
				t.Fatal(err)
			}
			far.Close()
			waitFor(t, "the end has come", newEnd(q).gone)
			if err := q.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			if n, err := q.Read(buf); err != nil || string(buf[:n]) != "421 bye\r\n" {
				t.Fatalf("got %q, %v", buf[:n], err)
			}
			if _, err := q.Read(buf); !errors.Is(err, how.want) {
				t.Errorf("got %v behind the bytes, want %v", err, how.want)
			}
		})
	}
}

// Errors are those that package net gives, so that isWeather knows them.
func TestQuickConnErrors(t *testing.T) {
	q, far := quickPair(t)
	if err := far.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	far.Close()
	buf := make([]byte, 10)
	if _, err := q.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after a reset: %v", err)
	}
	if _, err := q.Write(buf); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write after a reset: %v", err)
	}

	q, _ = quickPair(t)
	read, write := make(chan error), make(chan error)
	go func() { _, err := q.Read(buf); read <- err }()
	go func() { _, err := q.Write(make([]byte, 64<<20)); write <- err }()
	q.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read while it is closed: %v", err)
	}
	if err := <-write; !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
		t.Errorf("write while it is closed: %v", err)
	}
}
