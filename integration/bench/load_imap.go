package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// accounts is how many accounts log in, each from an address of its own.
const accounts = 2000

// Passwords that begin with wrongPassword are refused by the dummy server.
const wrongPassword = "wrong"

// openIMAP connects as account n and logs in.
func openIMAP(ctx context.Context, n int, addr string, secure *tls.Config) (*client, error) {
	n %= accounts
	c, err := dial(ctx, addr, source(n), secure)
	if err != nil {
		return nil, err
	}
	if _, err := c.next(); err != nil { // The greeting.
		c.close()
		return nil, fmt.Errorf("greeting: %w", err)
	}
	if err := c.command(fmt.Sprintf("LOGIN user%04d right%04d", n, n)); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// command sends a command with tag "a" and waits for its OK.
func (c *client) command(text string) error {
	if err := c.write("a " + text + "\r\n"); err != nil {
		return err
	}
	return c.finish(text)
}

// finish reads up to the tagged reply.
func (c *client) finish(text string) error {
	for {
		line, err := c.next()
		if err != nil {
			return fmt.Errorf("%.5s: %w", text, err)
		}
		if bytes.HasPrefix(line, []byte("a ")) {
			if !bytes.HasPrefix(line, []byte("a OK")) {
				return fmt.Errorf("%.5s: unexpected reply %q", text, line)
			}
			return nil
		}
	}
}

// logIn returns a worker that connects, logs in and logs out.
func logIn(secure *tls.Config) worker {
	return func(ctx context.Context, id int, addr string, t *tally) error {
		for n := 0; !t.stop.Load(); n++ {
			c, err := openIMAP(ctx, id+n*101, addr, secure)
			if err != nil {
				return err
			}
			err = c.command("LOGOUT")
			c.close()
			if err != nil {
				return err
			}
			t.ops.Add(1)
		}
		return nil
	}
}

// download returns a worker that fetches big messages on one connection.
func download(secure *tls.Config) worker {
	return func(ctx context.Context, id int, addr string, t *tally) error {
		c, err := openIMAP(ctx, id, addr, secure)
		if err != nil {
			return err
		}
		defer c.close()
		if err := c.command("SELECT INBOX"); err != nil {
			return err
		}
		for !t.stop.Load() {
			if err := c.fetch(t); err != nil {
				return err
			}
			t.ops.Add(1)
		}
		return c.command("LOGOUT")
	}
}

func (c *client) fetch(t *tally) error {
	if err := c.write("a FETCH 1 BODY[]\r\n"); err != nil {
		return err
	}
	line, err := c.next()
	if err != nil {
		return err
	}
	_, size, _ := strings.Cut(string(line), "{")
	n, err := strconv.Atoi(strings.TrimSuffix(size, "}"))
	if err != nil {
		return fmt.Errorf("unexpected reply %q", line)
	}
	if err := c.skip(n, func(got int) { t.bytes.Add(int64(got)) }); err != nil {
		return err
	}
	return c.finish("FETCH")
}

// roundTrips is a worker that sends one small command after the other and
// keeps how long each took, in a slice of its own for each connection.
type roundTrips struct {
	secure *tls.Config
	took   []time.Duration
}

func (r *roundTrips) work(ctx context.Context, id int, addr string, t *tally) error {
	c, err := openIMAP(ctx, id, addr, r.secure)
	if err != nil {
		return err
	}
	defer c.close()
	for !t.stop.Load() {
		begin := time.Now()
		if err := c.command("NOOP"); err != nil {
			return err
		}
		r.took = append(r.took, time.Since(begin))
		t.ops.Add(1)
	}
	return c.command("LOGOUT")
}

// median sorts what was taken.
func (r *roundTrips) median() time.Duration {
	slices.Sort(r.took)
	return r.took[len(r.took)/2]
}
