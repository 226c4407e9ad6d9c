package main

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
)

// A service is what a product can be asked to carry.
type service int

const (
	smtp service = iota
	smtps
	imap
	imaps
	imapsRSA
	services // how many there are
)

// A setup says how a product is to run.
type setup struct {
	dir     string
	certs   string
	backend backend
	// base is the port of the first service; the others follow.
	base int
	// cores is how many threads or workers it gets.
	cores int
	// kernelFilter and store are for mailreeve.
	kernelFilter bool
	store        string
}

func (s *setup) port(of service) int     { return s.base + int(of) }
func (s *setup) addr(of service) string  { return loopback(s.port(of)) }
func (s *setup) metrics() string         { return loopback(s.base + int(services)) }
func (s *setup) file(name string) string { return filepath.Join(s.dir, name) }
func (s *setup) cert(kind string) string { return filepath.Join(s.certs, kind) }

// A product is mailreeve, or a peer of it.
type product struct {
	name  string
	carry []service
	// refuses tells that it can refuse banned addresses.
	refuses bool
	start   func(*setup) (*process, error)
}

const (
	nameMailreeve = "mailreeve"
	nameDirect    = "direct"
)

// products are all there are, ours first. Direct is no proxy at all: it shows
// what clients and server can do, and that they are not the bottleneck.
func (b *bench) products() []product {
	all := []product{
		{nameMailreeve, []service{smtp, smtps, imap, imaps, imapsRSA}, true, b.startMailreeve},
		{"haproxy", []service{smtp, smtps, imap, imaps, imapsRSA}, true, startHAProxy},
		{"nginx-stream", []service{smtp, smtps, imap, imaps, imapsRSA}, true, startNginxStream},
		{"nginx-mail", []service{smtp, smtps, imap, imaps, imapsRSA}, false, b.startNginxMail},
		{"dovecot", []service{imap, imaps}, false, startDovecot},
		{nameDirect, []service{smtp, smtps, imap, imaps}, false, nil},
	}
	if b.against != "" {
		all = slices.Insert(all, 1, product{"other", all[0].carry, true, b.startOther})
	}
	return all
}

func (p *product) carries(s service) bool {
	for _, c := range p.carry {
		if c == s {
			return true
		}
	}
	return false
}

// A target is a running product.
type target struct {
	product
	setup setup
	proc  *process // nil for direct
}

// begin starts a product and waits until it accepts on all its ports.
func (p product) begin(s setup) (*target, error) {
	t := &target{product: p, setup: s}
	if p.start == nil {
		return t, nil
	}
	proc, err := p.start(&s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	t.proc = proc
	for _, carried := range p.carry {
		if err := proc.awaitUp(func() error { return reachable(s.addr(carried)) }); err != nil {
			proc.stop()
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return t, nil
}

func reachable(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		c.Close()
	}
	return err
}

func (t *target) stop() {
	if t.proc != nil {
		t.proc.stop()
	}
}

// addr is where a service is to be had; direct is the dummy server itself.
func (t *target) addr(s service) string {
	if t.proc != nil {
		return t.setup.addr(s)
	}
	b := t.setup.backend
	return loopback(map[service]int{smtp: b.SMTP, smtps: b.SMTPS, imap: b.IMAP, imaps: b.IMAPS}[s])
}

// pids are the processes that a target's work is done in.
func (t *target) pids() ([]int, error) {
	if t.proc == nil {
		return nil, nil
	}
	return tree(t.proc.cmd.Process.Pid)
}
