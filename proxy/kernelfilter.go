package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"mailreeve/guard"
)

// KernelFilter says whether the kernel drops the SYNs of banned addresses.
type KernelFilter string

const (
	// KernelFilterAuto uses it where the kernel and our rights allow.
	KernelFilterAuto KernelFilter = "auto"
	// KernelFilterOff answers banned addresses with a reset, after the
	// handshake.
	KernelFilterOff KernelFilter = "off"
	// KernelFilterRequired does not start without it.
	KernelFilterRequired KernelFilter = "required"
)

// Enforce says how bans are enforced.
type Enforce struct {
	// KernelFilter is "auto", "off" or "required"; "" is "off". With it a
	// banned client's connections time out; without it they are reset.
	KernelFilter KernelFilter `toml:"kernel-filter"`
}

// DefaultEnforce is in force where the configuration is silent.
func DefaultEnforce() Enforce { return Enforce{KernelFilter: KernelFilterAuto} }

func (e *Enforce) normalize() error {
	switch e.KernelFilter {
	case "":
		e.KernelFilter = KernelFilterOff
	case KernelFilterAuto, KernelFilterOff, KernelFilterRequired:
	default:
		return &ConfigError{Element{"enforce", 0, "kernel-filter"},
			fmt.Sprintf("%q is unknown; use \"auto\", \"off\" or \"required\"", e.KernelFilter)}
	}
	return nil
}

// A kernelFilter has the kernel drop the SYNs of banned addresses, by a
// program on each listening socket. A banned address then costs us nothing at
// all, however fast it knocks. What it gives up is an answer: to the client a
// dropped SYN looks like a dead host, and it will knock again a few times.
//
// It is an aid: what it lets through, accept refuses. So it may at any time
// hold less than the guard's bans, and must never hold more. Soft bans, and
// networks it cannot express, stay out; allow entries are looked at first; an
// entry ends by the kernel's own clock. A ban that was earned behind a trusted
// proxy is in it like all others, since its address may knock here itself; the
// trusted proxies are let through.
//
// Programs and tries belong to the sockets and to this process. Nothing is
// pinned: the kernel drops all of it when the process ends, however it ends, and
// nobody keeps its sockets for the next run.
type kernelFilter struct {
	log *slog.Logger
	// inForce tells the bans or the allow entries that are in force; it is not
	// called with mu held.
	inForce func(guard.ChangeKind, func(guard.Change))
	filling sync.WaitGroup // goroutines that enter what is in force

	mu      sync.Mutex
	state   string // "on", "off" or "unavailable"
	reason  error
	sets    map[setName]*filterSet
	dropped map[string]*ebpf.Map // tallies by listener
}

const (
	filterOn          = "on"
	filterOff         = "off"
	filterUnavailable = "unavailable"
)

func newKernelFilter(inForce func(guard.ChangeKind, func(guard.Change)), log *slog.Logger) *kernelFilter {
	return &kernelFilter{log: log, inForce: inForce,
		state: filterOff, sets: map[setName]*filterSet{}, dropped: map[string]*ebpf.Map{}}
}

// A filterPlan is a configuration's part of the filter, made ready.
type filterPlan struct {
	state    string
	reason   error
	programs map[string]*ebpf.Program // by listener; none unless the state is "on"
	// unfilled are the sets of bans made for it, which have none yet.
	unfilled map[setName]*filling
}

// abandon lets go of a plan that does not come into force.
func (f *kernelFilter) abandon(p filterPlan) {
	for _, program := range p.programs {
		program.Close()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, made := range p.unfilled {
		made.set.close()
		delete(f.sets, name)
	}
}

// prepare makes a program for each service, and the tries that they look at.
// That there can be none is an error only if
// the filter is required.
func (f *kernelFilter) prepare(mode KernelFilter, services []*service) (filterPlan, error) {
	if mode == KernelFilterOff {
		return filterPlan{state: filterOff}, nil
	}
	p := filterPlan{state: filterOn, programs: map[string]*ebpf.Program{}}
	var err error
	p.unfilled, err = f.makeSets(services)
	for i := 0; i < len(services) && err == nil; i++ {
		name := services[i].Name
		if program, e := f.program(services[i]); e == nil {
			p.programs[name] = program
		} else {
			err = e
		}
	}
	if err == nil {
		return p, nil
	}
	f.abandon(p)
	if err = filterHint(err); mode == KernelFilterRequired {
		return filterPlan{}, &ConfigError{Element{"enforce", 0, "kernel-filter"}, err.Error()}
	}
	return filterPlan{state: filterUnavailable, reason: err}, nil
}

// filterHint adds what to do about it.
func filterHint(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return &hinted{fmt.Errorf("kernel filter: %w", unix.EPERM),
			"it needs CAP_BPF: add it to AmbientCapabilities and CapabilityBoundingSet of the unit, or set kernel-filter = \"off\""}
	}
	return fmt.Errorf("kernel filter: %w", err)
}

// enter brings a plan into force on the listening sockets, logs if that is a
// new state, and lets go of what the services do not need.
func (f *kernelFilter) enter(p filterPlan, services []*service, listeners map[string]*listener) {
	for _, svc := range services {
		f.attach(listeners[svc.Address], svc.Name, p.programs[svc.Name])
	}
	f.mu.Lock()
	was := f.state
	f.state, f.reason = p.state, p.reason
	f.mu.Unlock()
	f.keep(services)
	f.filling.Go(func() { f.fillBans(p.unfilled) })
	switch {
	case p.state == was:
	case p.state == filterUnavailable:
		f.log.Warn("banned addresses are refused after the handshake", "error", p.reason)
	default:
		f.log.Info("kernel filter", "state", p.state)
	}
}

// program makes the program of one service. It drops who is banned in every
// scope, in the service's, or on the service itself.
func (f *kernelFilter) program(svc *service) (*ebpf.Program, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var spec filterSpec
	for _, name := range setsOf(svc) {
		if name.allow {
			spec.pass = append(spec.pass, f.sets[name].trie)
		} else {
			spec.bans = append(spec.bans, f.sets[name].trie)
		}
	}
	trusted, err := trustedSet(svc)
	if err != nil {
		return nil, err
	}
	if trusted != nil {
		defer trusted.close() // the program holds it
		spec.pass = append(spec.pass, trusted.trie)
	}
	// The counter outlives a reload.
	if f.dropped[svc.Name] == nil {
		tally, err := newTally()
		if err != nil {
			return nil, fmt.Errorf("make counter: %w", err)
		}
		f.dropped[svc.Name] = tally
	}
	spec.dropped = f.dropped[svc.Name]
	return spec.load()
}

// trustedSet holds the peers that send a service PROXY headers, nil for none.
func trustedSet(svc *service) (*filterSet, error) {
	prefixes, err := parsePrefixes(svc.TrustedProxies)
	if err != nil || len(prefixes) == 0 {
		return nil, err
	}
	set, err := newFilterSet("reeve_trusted")
	if err != nil {
		return nil, err
	}
	for _, p := range prefixes {
		key, _ := newFilterKey(p)
		if err := set.put(key, forever); err != nil {
			set.close()
			return nil, fmt.Errorf("enter %v: %w", p, err)
		}
	}
	return set, nil
}

// attach puts a program on a listening socket, in place of the one before it,
// or takes that one off. The socket keeps the program; ours is closed.
func (f *kernelFilter) attach(l *listener, name string, p *ebpf.Program) {
	if p == nil && !l.filtered.Load() {
		return
	}
	rc, err := l.file.SyscallConn()
	if err != nil {
		return
	}
	// Sockets that are accepted later on may have it, even if it fails.
	l.filtered.Store(true)
	var optErr error
	err = rc.Control(func(fd uintptr) {
		if p == nil {
			optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
			return
		}
		optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_BPF, p.FD())
	})
	if p != nil {
		p.Close()
		if err := errors.Join(err, optErr); err != nil {
			f.log.Warn("banned addresses are refused after the handshake", "listener", name, "error", err)
		}
	}
}

// detachFilter takes the filter off an accepted socket, which has inherited it:
// it would cost time there for every packet. Without one it does nothing.
func detachFilter(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
}

// keep lets go of what none of the services needs.
func (f *kernelFilter) keep(services []*service) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sets, names := map[setName]bool{}, map[string]bool{}
	if f.state == filterOn {
		for _, svc := range services {
			names[svc.Name] = true
			for _, name := range setsOf(svc) {
				sets[name] = true
			}
		}
	}
	for name, set := range f.sets {
		if !sets[name] {
			set.close()
			delete(f.sets, name)
		}
	}
	for name, m := range f.dropped {
		if !names[name] {
			m.Close()
			delete(f.dropped, name)
		}
	}
}

// close lets go of everything. The listening sockets must be closed already:
// they hold the tries, and nobody would follow the guard any more.
func (f *kernelFilter) close() {
	f.mu.Lock()
	f.state = filterOff
	f.mu.Unlock()
	f.keep(nil)
	f.filling.Wait()
}
