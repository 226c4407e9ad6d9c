package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A bench is one run.
type bench struct {
	results
	options

	dir     string
	authURL string // what nginx's mail proxy asks
	auth    *http.Server
	server  *helper
	raw     *os.File
	chosen  []product
	broken  map[string]bool // products that do not start
	filler  *helper         // fills stores with bans
	filled  chan error      // a store has been filled
	// running are the targets of the ordinary rows.
	running []*target
}

// Where the ports of a run are; a namespace has them all for itself.
const (
	dummyBase  = 2000
	targetBase = 2100 // each target has 10
)

// newBench prepares everything but the products.
func newBench(o options) (*bench, error) {
	dir, err := os.MkdirTemp("", "mailreeve-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, dir: dir, broken: map[string]bool{}}
	if err := b.prepare(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) prepare() error {
	// Dovecot's login processes run as a user of their own.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	var err error
	if b.chosen, err = pick(b.products(), func(p product) string { return p.name }, b.targets); err != nil {
		return err
	}
	if b.json != "" {
		if b.raw, err = os.Create(b.json); err != nil {
			return err
		}
		b.results.raw = b.raw
	}
	if err := makeCertificates(b.dir); err != nil {
		return err
	}
	if b.binary == "" && slices.Contains(b.names(), nameMailreeve) {
		b.binary = filepath.Join(b.dir, "mailreeve-bin")
		if err := buildMailreeve(b.binary); err != nil {
			return err
		}
	}
	if b.server, err = b.startDummy("dummy", dummyBase); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b.authURL = l.Addr().String()
	b.auth = &http.Server{Handler: http.HandlerFunc(letEverybodyIn)}
	go b.auth.Serve(l)
	return nil
}

func (b *bench) startDummy(name string, base int) (*helper, error) {
	cert := filepath.Join(b.dir, certECDSA)
	return startHelper(filepath.Join(b.dir, name+".log"), "serve-dummy", cert+".pem", cert+".key", fmt.Sprint(base))
}

func (b *bench) names() []string {
	var names []string
	for _, p := range b.chosen {
		names = append(names, p.name)
	}
	return names
}

func (b *bench) close() {
	b.stopTargets()
	if b.server != nil {
		b.server.stop()
	}
	if b.filler != nil {
		b.filler.stop()
	}
	if b.auth != nil {
		b.auth.Close()
	}
	if b.raw != nil {
		b.raw.Close()
	}
	os.RemoveAll(b.dir)
}

// setup is how a product runs in this bench; place keeps instances apart.
func (b *bench) setup(p product, place, cores int) (setup, error) {
	s := setup{
		dir:     filepath.Join(b.dir, fmt.Sprintf("%s-%d", p.name, place)),
		certs:   b.dir,
		backend: backendAt(dummyBase),
		base:    targetBase + 10*place,
		cores:   cores,
	}
	if s.cores == 0 {
		s.cores = runtime.NumCPU()
	}
	return s, os.MkdirAll(s.dir, 0o755)
}

// startTargets starts the chosen products, those that are not running.
func (b *bench) startTargets(cores int) error {
	if len(b.running) > 0 && b.running[0].setup.cores == cores {
		return nil
	}
	b.stopTargets()
	for i, p := range b.chosen {
		if b.broken[p.name] {
			continue
		}
		s, err := b.setup(p, i, cores)
		if err != nil {
			return err
		}
		t, err := p.begin(s)
		if err != nil {
			// The others are worth measuring all the same.
			b.note("Not measured: %v", err)
			b.broken[p.name] = true
			continue
		}
		b.running = append(b.running, t)
	}
	if len(b.running) == 0 {
		return errors.New("no product runs")
	}
	return nil
}

func (b *bench) stopTargets() {
	for _, t := range b.running {
		t.stop()
	}
	b.running = nil
}

// do measures a row.
func (b *bench) do(ctx context.Context, r *row) error {
	begin := time.Now()
	defer func() { fmt.Fprintf(os.Stderr, "%-18s %v\n", r.name, time.Since(begin).Round(time.Second)) }()
	if r.whole != nil {
		return r.whole(ctx, b, r)
	}
	if r.cores == 0 {
		r.cores = runtime.NumCPU()
	}
	if err := b.startTargets(r.cores); err != nil {
		return err
	}
	rounds := b.rounds
	if r.few {
		rounds = min(3, rounds)
	}
	var faults []error
	for round := range rounds {
		for _, t := range b.running {
			if !r.concerns(&t.product) || ctx.Err() != nil {
				continue
			}
			if err := b.measure(ctx, r, t, round); err != nil {
				faults = append(faults, fmt.Errorf("%s, round %d: %w", t.name, round, err))
			}
		}
	}
	return errors.Join(faults...)
}

// measure takes one sample and keeps its figures.
func (b *bench) measure(ctx context.Context, r *row, t *target, round int) error {
	pids, err := t.pids()
	if err != nil {
		return err
	}
	s, err := drive(ctx, r.workers, t.addr(r.service), r.work, b.window, pids)
	if err != nil {
		return err
	}
	if s.Ops == 0 && s.Bytes == 0 {
		return errors.New("nothing was completed in the window")
	}
	for _, m := range r.metrics {
		if m.ofProxy && t.proc == nil {
			continue
		}
		if err := b.add(r, m, t.name, round, m.of(s), s.Steal); err != nil {
			return err
		}
	}
	return nil
}

// describe prints what was measured on what.
func (b *bench) describe(w io.Writer) {
	fmt.Fprintf(w, "Date: %s. Machine: %d cores (%s), %s, %s. Rounds: %d of %v.\n",
		time.Now().UTC().Format("2006-01-02 15:04 MST"), runtime.NumCPU(), cpuModel(), kernel(),
		runtime.Version(), b.rounds, b.window)
	for _, p := range [][]string{
		{"haproxy", "-v"}, {"nginx", "-v"}, {"dovecot", "--version"},
	} {
		if out, err := exec.Command(p[0], p[1:]...).CombinedOutput(); err == nil {
			first, _, _ := strings.Cut(string(out), "\n")
			fmt.Fprintf(w, "%s: %s. ", p[0], first)
		}
	}
	fmt.Fprint(w, "\n\n")
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	_, after, _ := strings.Cut(string(text), "model name\t: ")
	model, _, _ := strings.Cut(after, "\n")
	return model
}

func kernel() string {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return "Linux " + strings.TrimSpace(string(text))
}
