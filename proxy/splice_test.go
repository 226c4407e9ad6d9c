package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tcpPair is a connection over loopback.
func tcpPair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// spliceBed is a connection between two sockets, without a relay.
func spliceBed(t testing.TB) (c *conn, client, server *net.TCPConn) {
	t.Helper()
	client, nearClient := tcpPair(t)
	server, nearServer := tcpPair(t)
	s := &Server{pipes: make(pipes, maxPipes)}
	t.Cleanup(s.pipes.close)
	c = &conn{service: &service{server: s}, client: newEnd(takeOver(t, nearClient)), server: newEnd(takeOver(t, nearServer))}
	return c, client, server
}

// spliced moves everything from the server to the client, as copyBlind would:
// a read of whatever comes first, then what is there.
func spliced(c *conn) error {
	b := make([]byte, 100)
	for {
		n, err := c.server.Read(b)
		if err != nil {
			return err
		}
		if _, err := c.client.Write(b[:n]); err != nil {
			return err
		}
		if readErr, writeErr := c.splice(c.server, c.client); readErr != nil || writeErr != nil {
			return errors.Join(readErr, writeErr)
		}
	}
}

// Everything arrives, in order, however it comes and however slowly it is
// taken, and every spliced byte is counted.
func TestSpliceMovesEverything(t *testing.T) {
	c, client, server := spliceBed(t)
	random := rand.New(rand.NewPCG(1, 2))
	sent := make([]byte, 8<<20)
	for i := range sent {
		sent[i] = byte(random.Uint32())
	}
	go func() {
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), 1+random.IntN(300_000))
			_, _ = server.Write(rest[:n])
			rest = rest[n:]
		}
		_ = server.CloseWrite()
	}()
	done := make(chan error, 1)
	go func() {
		done <- spliced(c)
		_ = c.client.CloseWrite()
	}()
	_ = client.SetReadBuffer(200_000) // so that the other side has to wait for it
	var got bytes.Buffer
	_ = client.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.CopyBuffer(&got, struct{ io.Reader }{client}, make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != io.EOF {
		t.Errorf("got %v, want the end of the stream", err)
	}
	if !bytes.Equal(got.Bytes(), sent) {
		t.Errorf("%d bytes arrived, not as the %d that were sent", got.Len(), len(sent))
	}
	if n := c.bytesOut.Load(); n == 0 || n > int64(len(sent)) {
		t.Errorf("%d spliced bytes were counted", n)
	}
	if len(c.service.server.pipes) != 1 {
		t.Errorf("%d pipes were kept, want the one", len(c.service.server.pipes))
	}
	if c.client.writing.Load() != 0 {
		t.Error("a write seems to be under way")
	}
}

// A client that takes nothing does not hold the sweeper up: a write is seen to
// be under way, and a deadline ends it. The pipe, which holds bytes, goes.
func TestSpliceIntoAStalledClient(t *testing.T) {
	c, _, server := spliceBed(t)
	go func() { _, _ = server.Write(make([]byte, 64<<20)) }()
	done := make(chan error, 1)
	go func() { done <- spliced(c) }()
	waitFor(t, "the write to stall", func() bool {
		since := c.client.writing.Load()
		return since != 0 && moment()-since > int64(50*time.Millisecond)
	})
	_ = c.client.tcp.SetWriteDeadline(time.Unix(1, 0))
	if err := <-done; !isTimeout(err) {
		t.Errorf("got %v, want a timeout", err)
	}
	if len(c.service.server.pipes) != 0 {
		t.Error("a pipe with bytes in it was kept")
	}
}

// Between two bursts no pipe is held, though the goroutine is not back at a
// read; a deadline, by which connections are asked to rest, leads it there.
func TestSpliceWaitsWithoutAPipe(t *testing.T) {
	c, client, server := spliceBed(t)
	done := make(chan error, 1)
	go func() { done <- spliced(c) }()
	for range 3 {
		go func() { _, _ = server.Write(make([]byte, 1<<20)) }()
		_ = client.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.CopyN(io.Discard, client, 1<<20); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the pipe to come back", func() bool { return len(c.service.server.pipes) == 1 })
	}
	_ = c.server.tcp.SetReadDeadline(time.Unix(1, 0))
	if err := <-done; !isTimeout(err) {
		t.Errorf("got %v, want a timeout", err)
	}
	if n := c.bytesOut.Load(); n < 3<<20-100 || n > 3<<20 {
		t.Errorf("%d bytes were counted, want all but those of the first read", n)
	}
}

// Without descriptors for a pipe the caller is sent back to copying.
func TestSpliceWithoutDescriptors(t *testing.T) {
	c, _, server := spliceBed(t)
	_, _ = server.Write(make([]byte, 1000))
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	none := was
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	readErr, writeErr := c.splice(c.server, c.client)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if readErr != nil || writeErr != nil {
		t.Errorf("got %v and %v, want none", readErr, writeErr)
	}
	if n, err := c.server.Read(make([]byte, 2000)); n != 1000 || err != nil {
		t.Errorf("read %d, %v, want the 1000 bytes that were sent", n, err)
	}
}

func TestSpliceIntoAClientThatIsGone(t *testing.T) {
	c, client, server := spliceBed(t)
	go func() { _, _ = server.Write(make([]byte, 64<<20)) }()
	_ = client.SetLinger(0)
	client.Close()
	if err := spliced(c); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want that the client is gone", err)
	}
}

// A reset is told as one, and not as an end.
func TestSpliceFromAServerThatResets(t *testing.T) {
	c, client, server := spliceBed(t)
	go func() { _, _ = io.Copy(io.Discard, client) }()
	go func() {
		_, _ = server.Write(make([]byte, 1<<20))
		_ = server.SetLinger(0)
		server.Close()
	}()
	if err := spliced(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// Through the whole relay: a download after a login, byte for byte, and its
// bytes in the log.
func TestSpliceADownload(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 1<<16)
	b := newBed(t, imapPlain, func(s *session) {
		fmt.Fprint(s, "* OK Dovecot ready.\r\n")
		for {
			tag, command, _ := strings.Cut(s.line(), " ")
			switch {
			case tag == "":
				return
			case strings.HasPrefix(command, "FETCH"):
				fmt.Fprintf(s, "* 1 FETCH (BODY[] {%d}\r\n%s)\r\n%s OK\r\n", len(body), body, tag)
			default:
				fmt.Fprintf(s, "%s OK [CAPABILITY IMAP4rev1] done\r\n", tag)
			}
		}
	}, nil)
	c := b.dial("127.0.0.3")
	c.expect("* OK")
	c.send("a LOGIN alice right")
	c.expect("a OK")
	for range 3 {
		c.send("b FETCH 1 BODY[]")
		c.expect("* 1 FETCH")
		got := make([]byte, len(body))
		if _, err := io.ReadFull(c.r, got); err != nil {
			t.Fatal(err)
		}
		if string(got) != body {
			t.Fatal("the body is not what was sent")
		}
		c.expect(")")
		c.expect("b OK")
	}
	for _, c := range b.server.conns.list(nil) {
		if n := c.bytesOut.Load(); n < int64(3*len(body)) {
			t.Errorf("%d bytes were counted, want more than %d", n, 3*len(body))
		}
	}
}

// BenchmarkCopyBlind tells the CPU time that a GB from a server to a client
// costs the relay's own thread, the kernel's part included.
func BenchmarkCopyBlind(b *testing.B) {
	copied := func(c *conn) error {
		_, err := io.CopyBuffer(struct{ io.Writer }{c.client}, struct{ io.Reader }{c.server}, make([]byte, largeBuffer))
		return err
	}
	for _, way := range []struct {
		name  string
		relay func(*conn) error
	}{{"copied", copied}, {"spliced", spliced}} {
		b.Run(way.name, func(b *testing.B) {
			c, client, server := spliceBed(b)
			const size = 1 << 20
			b.SetBytes(size)
			go func() {
				chunk := make([]byte, size)
				for range b.N {
					_, _ = server.Write(chunk)
				}
				_ = server.CloseWrite()
			}()
			go func() { _, _ = io.CopyBuffer(io.Discard, struct{ io.Reader }{client}, make([]byte, size)) }()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			before := cpuTime(b)
			if err := way.relay(c); err != nil && err != io.EOF {
				b.Fatal(err)
			}
			b.ReportMetric((cpuTime(b)-before).Seconds()*(1<<30)/size/float64(b.N), "CPU-s/GiB")
		})
	}
}

// cpuTime is what this thread has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
