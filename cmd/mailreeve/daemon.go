package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"mailreeve/guard"
	"mailreeve/proxy"
)

// A daemon is the running program: guard and proxy, and what an operator
// reaches them by.
type daemon struct {
	file    string
	log     *slog.Logger
	level   *slog.LevelVar
	started time.Time
	guard   *guard.Guard
	proxy   *proxy.Server
	names   *resolver
	metrics *metrics

	// cancel ends what runs beside the proxy; running waits for it.
	cancel  context.CancelFunc
	running sync.WaitGroup

	// reloading is held while a configuration is put in place.
	reloading sync.Mutex

	mu     sync.Mutex
	config *Config
	loaded time.Time
}

// start brings everything up, listeners last. On an error nothing is left
// running.
func start(ctx context.Context, file string, c *Config, log *slog.Logger, level *slog.LevelVar) (*daemon, error) {
	d := &daemon{file: file, config: c, log: log, level: level, started: time.Now(), loaded: time.Now()}
	beside, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d.cancel = cancel
	if err := d.open(ctx, beside); err != nil {
		if d.proxy != nil {
			over, end := context.WithTimeout(context.Background(), 0)
			_ = d.proxy.Shutdown(over)
			end()
		}
		d.cancel()
		d.running.Wait()
		return nil, errors.Join(err, d.closeGuard())
	}
	return d, nil
}

// open is start's list of what there is to open, in order. The admin socket
// comes first because it tells best that another mailreeve runs already.
func (d *daemon) open(ctx, beside context.Context) (err error) {
	admin, err := listenAdmin(ctx, d.config.Admin.Socket)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			admin.Close()
		}
	}()
	if err := d.openGuard(ctx, beside); err != nil {
		return err
	}
	if d.proxy, err = proxy.New(d.config.proxyConfig(), d.guard, d.log); err != nil {
		return err
	}
	d.metrics = newMetrics(d.guard, d.proxy)
	d.serveHTTP(beside, admin, d.api())
	if d.config.Admin.Metrics != "" {
		l, err := net.Listen("tcp", d.config.Admin.Metrics)
		if err != nil {
			return fmt.Errorf("admin.metrics: %w", err)
		}
		d.serveHTTP(beside, l, d.metrics.handler(d))
	}
	return withPortHint(d.proxy.Listen())
}

// openGuard opens the guard and has the names of its allow list resolved.
func (d *daemon) openGuard(ctx, beside context.Context) error {
	opt, err := guardOptions(ctx, d.config)
	if err != nil {
		return err
	}
	opt.Store, opt.Log = d.config.Store, d.log
	if d.guard, err = guard.Open(d.config.Guard, opt); err != nil {
		return fmt.Errorf("open the guard: %w", err)
	}
	d.names = newResolver(d.guard.SetAllowedNames, d.log)
	d.names.watch(d.config.Guard.AllowedNames())
	d.running.Go(func() { d.names.run(beside) })
	return nil
}

// withPortHint adds what to do to an error about a port below 1024.
func withPortHint(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; ports below 1024 need the capability CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE) or root", err)
	}
	return err
}

// serveHTTP serves until ctx ends; open requests are cut then.
func (d *daemon) serveHTTP(ctx context.Context, l net.Listener, h http.Handler) {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	d.running.Go(func() {
		<-ctx.Done()
		server.Close()
	})
	d.running.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("admin: stopped serving", "address", l.Addr().String(), "error", err)
		}
	})
}

// stop drains the proxy for at most the configured time, then closes
// everything. A second signal has ended the process before that.
func (d *daemon) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), d.current().Timeouts.Drain.Std())
	defer cancel()
	err := d.proxy.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // What was left has been cut; that is what the bound is for.
	}
	d.cancel()
	d.running.Wait()
	return errors.Join(err, d.closeGuard())
}

func (d *daemon) closeGuard() error {
	if d.guard == nil {
		return nil
	}
	return d.guard.Close()
}

func (d *daemon) current() *Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config
}

func (d *daemon) loadedAt() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.loaded
}

// reload reads the configuration file again and puts it in place: all of it,
// or on any error none.
func (d *daemon) reload() error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	err := d.replaceConfig()
	d.metrics.reloaded(err)
	if err != nil {
		d.log.Error("reload: the configuration is not taken, everything stays as it was", "error", err)
		return err
	}
	d.log.Info("reload: done", "config", d.file)
	return nil
}

func (d *daemon) replaceConfig() error {
	next, err := loadConfig(d.file)
	if err != nil {
		return &exitError{exitConfig, err}
	}
	old := d.current()
	if err := fixedSettings(d.file, old, next); err != nil {
		return &exitError{exitConfig, err}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*lookupWithin)
	defer cancel()
	opt, err := guardOptions(ctx, next)
	if err != nil {
		return err
	}
	oldOpt, err := guardOptions(ctx, old)
	if err != nil {
		oldOpt = opt // The old alias file is gone; the new one is nearest.
	}
	if err := d.guard.Reconfigure(next.Guard, opt); err != nil {
		return err
	}
	if err := d.proxy.Reload(next.proxyConfig()); err != nil {
		return errors.Join(withPortHint(err), d.guard.Reconfigure(old.Guard, oldOpt))
	}
	d.names.watch(next.Guard.AllowedNames())
	if level, err := next.Log.level(); err == nil {
		d.level.Set(level)
	}
	d.mu.Lock()
	d.config, d.loaded = next, time.Now()
	d.mu.Unlock()
	return nil
}

// fixedSettings refuses changes of what a running program cannot change.
func fixedSettings(file string, old, next *Config) error {
	var faults []error
	for _, s := range []struct {
		table, key string
		same       bool
	}{
		{"admin", "socket", old.Admin.Socket == next.Admin.Socket},
		{"admin", "metrics", old.Admin.Metrics == next.Admin.Metrics},
		{"log", "format", old.Log.Format == next.Log.Format},
		{"store", "", old.Store == next.Store},
	} {
		if !s.same {
			faults = append(faults, faultAt(s.table, s.key, "changes only with a restart; put it back, or restart"))
		}
	}
	if faults == nil {
		return nil
	}
	text, err := readConfigFile(file)
	if err != nil {
		return err
	}
	return placeError(file, locate(text), errors.Join(faults...))
}

// guardOptions gathers what the guard must know of the rest of the
// configuration and of the machine.
func guardOptions(ctx context.Context, c *Config) (guard.Options, error) {
	aliases, err := readAliases(c.Guard.AliasFile)
	if err != nil {
		return guard.Options{}, err
	}
	opt := guard.Options{Aliases: aliases, Local: localPrefixes(ctx, c)}
	for _, l := range c.Listeners {
		for _, s := range l.TrustedProxies {
			if p, err := guard.ParsePrefix(s); err == nil {
				opt.Trusted = append(opt.Trusted, p)
			}
		}
	}
	return opt, nil
}

// localPrefixes are this machine's addresses and the upstreams'. A name of an
// upstream that does not resolve now is left out: it only matters for mail
// servers that connect to us.
func localPrefixes(ctx context.Context, c *Config) []netip.Prefix {
	var local []netip.Prefix
	add := func(a netip.Addr) {
		a = a.Unmap().WithZone("")
		local = append(local, netip.PrefixFrom(a, a.BitLen()))
	}
	ours, _ := net.InterfaceAddrs() // Without them loopback still is local.
	for _, a := range ours {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			add(p.Addr())
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookupWithin)
	defer cancel()
	for _, u := range c.Upstreams {
		for _, address := range u.Addresses {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				continue
			}
			addrs, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
			for _, a := range addrs {
				add(a)
			}
		}
	}
	return local
}

// maxAliasLine bounds a line of the alias file, in bytes.
const maxAliasLine = 4 << 10

// readAliases reads the alias file: "alias login" a line, # begins a comment.
// Like virtual_alias_maps, minus what points to several.
func readAliases(file string) (map[string]string, error) {
	if file == "" {
		return nil, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("guard.alias-file: %w", err)
	}
	defer f.Close()
	aliases := map[string]string{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxAliasLine)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		switch fields := strings.Fields(text); len(fields) {
		case 0:
		case 2:
			aliases[fields[0]] = fields[1]
		default:
			return nil, fmt.Errorf("%s:%d: a line is \"alias login\", two words", file, n)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return aliases, nil
}
