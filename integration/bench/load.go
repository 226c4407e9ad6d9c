package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A tally is what the workers of a load have done so far.
type tally struct {
	ops   atomic.Int64
	bytes atomic.Int64
	stop  atomic.Bool
}

// A worker puts load on an address until the tally says stop. It counts what
// is done, not what is begun.
type worker func(ctx context.Context, id int, addr string, t *tally) error

// A sample is what happened in one window.
type sample struct {
	Ops     int64
	Bytes   int64
	Seconds float64
	CPU     time.Duration // of the proxy's processes
	Steal   float64       // of the machine, in per cent
}

// patience is how long workers may take to get going, and to end.
const patience = 20 * time.Second

// drive runs n workers against an address, lets them warm up, and takes a
// sample of window while they run. pids are the processes to account for.
func drive(ctx context.Context, n int, addr string, work worker, window time.Duration, pids []int) (sample, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var t tally
	var group sync.WaitGroup
	faults := make(chan error, n)
	for id := range n {
		group.Go(func() {
			if err := work(ctx, id, addr, &t); err != nil {
				faults <- fmt.Errorf("worker %d: %w", id, err)
			}
		})
	}
	s, err := t.sample(ctx, n, window, pids, faults)
	t.stop.Store(true)
	if err != nil {
		cancel() // The others may hang.
	}
	ended := make(chan struct{})
	go func() { group.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience):
		cancel() // Closes what hangs.
		<-ended
		err = errors.Join(err, errors.New("workers did not end"))
	}
	select {
	case fault := <-faults:
		return s, errors.Join(err, fault)
	default:
		return s, err
	}
}

// sample waits until every worker may be in its stride, then takes two
// readings.
func (t *tally) sample(ctx context.Context, n int, window time.Duration, pids []int, faults <-chan error) (sample, error) {
	var s sample
	for begin := time.Now(); t.ops.Load() < int64(n) && t.bytes.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			return s, errors.New("the load does not get going")
		}
		select {
		case fault := <-faults:
			return s, fault
		case <-ctx.Done():
			return s, ctx.Err()
		default:
		}
	}
	time.Sleep(window / 5)
	machine, err := machineNow()
	if err != nil {
		return s, err
	}
	ops, octets, begin := t.ops.Load(), t.bytes.Load(), time.Now()
	cpu, err := cpuTime(pids)
	if err != nil {
		return s, err
	}
	time.Sleep(window)
	s.Ops, s.Bytes = t.ops.Load()-ops, t.bytes.Load()-octets
	s.Seconds = time.Since(begin).Seconds()
	after, err := cpuTime(pids)
	if err != nil {
		return s, err
	}
	s.CPU = after - cpu
	now, err := machineNow()
	s.Steal = now.stealSince(machine)
	return s, err
}

// source is the loopback address of the i-th client. Every client has one of
// its own, as in life: proxies keep counts for each address.
func source(i int) net.IP {
	return net.IPv4(127, byte(16+i/62500%64), byte(i/250%250), byte(1+i%250))
}

// A client is one client's connection, read line by line.
type client struct {
	*lines
	forget func() bool
}

// dial connects from a client's address. The connection ends with ctx.
func dial(ctx context.Context, addr string, from net.IP, secure *tls.Config) (*client, error) {
	d := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: from},
		Timeout:   patience,
		KeepAlive: -1,
		Control:   choosePortLate,
	}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	forget := context.AfterFunc(ctx, func() { c.Close() })
	if secure != nil {
		c = tls.Client(c, secure)
	}
	return &client{newLines(c), forget}, nil
}

func (c *client) close() {
	c.forget()
	c.c.Close()
}

// choosePortLate has the kernel choose the port in connect, when it knows the
// destination: else a port that is in TIME_WAIT anywhere is lost everywhere.
func choosePortLate(_, _ string, raw syscall.RawConn) error {
	var err error
	ctl := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	return errors.Join(ctl, err)
}

// clientTLS is what the clients offer: the key exchange and the record sizes
// of OpenSSL 3.0, which most mail clients and servers have today. kind is the
// kind of certificate to ask for, groups come before OpenSSL's.
func clientTLS(kind string, groups ...tls.CurveID) *tls.Config {
	// TLS 1.2 needs the certificate's curve in the list, too.
	groups = append(groups, tls.X25519, tls.CurveP256)
	return &tls.Config{
		ServerName:                  kind + ".example.test",
		InsecureSkipVerify:          true, // Verifying would only slow us.
		CurvePreferences:            groups,
		DynamicRecordSizingDisabled: true,
	}
}
