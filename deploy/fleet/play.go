package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pires/go-proxyproto"
)

// until tries f until it succeeds, for at most half a minute.
func until(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func reachable(ctx context.Context, addr string) error {
	return until(ctx, func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// readyz gives the body of a proxy's /readyz.
func readyz(ctx context.Context, addr string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/readyz", nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s says %s: %s", addr, resp.Status, body)
	}
	return string(body), err
}

// told waits until a proxy's /readyz says something.
func (f *fleet) told(ctx context.Context, addr, what string) error {
	return until(ctx, func() error {
		body, err := readyz(ctx, addr)
		if err == nil && !strings.Contains(body, what) {
			err = fmt.Errorf("%s/readyz does not say %q: %s", addr, what, body)
		}
		return err
	})
}

// connected waits until all proxies are ready and connected to the store.
func (f *fleet) connected(ctx context.Context) error {
	for n := 1; n <= 3; n++ {
		err := until(ctx, func() error {
			body, err := readyz(ctx, fmt.Sprint("127.0.0.1:2932", n))
			if err == nil && strings.Contains(body, "away") {
				err = errors.New(strings.TrimSpace(body))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// attacked guesses from an address over 200 connections at once and checks
// that the server behind saw no more guesses than the limit.
func (f *fleet) attacked(ctx context.Context, addr, when string) error {
	before := f.server.guesses.Load()
	start := time.Now()
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() { guess(ctx, addr, i) })
	}
	wg.Wait()
	saw := f.server.guesses.Load() - before
	fmt.Printf("200 guesses at once from %s, %s: the server saw %d, the limit is 10 (%v)\n", addr, when, saw, time.Since(start).Round(time.Millisecond))
	if saw > 10 {
		return fmt.Errorf("the server saw %d guesses", saw)
	}
	if saw == 0 {
		return errors.New("the server saw no guess, so this shows nothing")
	}
	return nil
}

// guess tries a password over a connection of its own. Whether it is refused
// or cut is all the same to it.
func guess(ctx context.Context, addr string, i int) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}, Timeout: 10 * time.Second}
	c, err := d.DialContext(ctx, "tcp", "127.0.0.1:20143")
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		return
	}
	fmt.Fprintf(c, "a LOGIN user%d@example.test guess%d-%s\r\n", i%5, i, addr)
	for {
		line, err := r.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "a ") {
			return
		}
	}
}

// bans waits until a proxy lists an address as banned.
func (f *fleet) bans(ctx context.Context, node int, addr string) error {
	conf := filepath.Join(f.dir, fmt.Sprintf("mailreeve%d.toml", node))
	return until(ctx, func() error {
		out, err := exec.CommandContext(ctx, filepath.Join(f.dir, "mailreeve"), "bans", "--config", conf).CombinedOutput()
		if err == nil && !strings.Contains(string(out), addr) {
			err = fmt.Errorf("mailreeve bans at node %d does not list %s:\n%s", node, addr, out)
		}
		return err
	})
}

// A mailServer is an IMAP server that knows nobody and takes 3 s to say so.
type mailServer struct {
	listener net.Listener
	guesses  atomic.Int64
}

const slow = 3 * time.Second

func newMailServer(addr string) (*mailServer, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &mailServer{listener: &proxyproto.Listener{Listener: l, ReadHeaderTimeout: 5 * time.Second}}
	go s.accept()
	return s, nil
}

func (s *mailServer) accept() {
	for {
		c, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			go s.serve(c)
		}
	}
}

const capability = "CAPABILITY IMAP4rev1 LITERAL+ AUTH=PLAIN"

func (s *mailServer) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(io.LimitReader(c, 1<<20))
	fmt.Fprintf(c, "* OK [%s] ready\r\n", capability)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		tag, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		verb, _, _ := strings.Cut(rest, " ")
		switch strings.ToUpper(verb) {
		case "LOGIN":
			s.guesses.Add(1)
			time.Sleep(slow)
			fmt.Fprintf(c, "%s NO [AUTHENTICATIONFAILED] wrong\r\n", tag)
		case "CAPABILITY":
			fmt.Fprintf(c, "* %s\r\n%s OK\r\n", capability, tag)
		case "LOGOUT":
			fmt.Fprintf(c, "* BYE\r\n%s OK\r\n", tag)
			return
		default:
			fmt.Fprintf(c, "%s OK\r\n", tag)
		}
	}
}
