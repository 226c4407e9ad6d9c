package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
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
	sockets proxy.SocketStore
	names   *resolver
	events  eventHub
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
func start(ctx context.Context, file string, c *Config, sockets proxy.SocketStore, log *slog.Logger, level *slog.LevelVar) (*daemon, error) {
	d := &daemon{file: file, config: c, sockets: sockets, log: log, level: level, started: time.Now(), loaded: time.Now()}
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
		return nil, errors.Join(inFile(file, err), d.closeGuard())
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
	d.proxy.KeepSockets(d.sockets)
	d.metrics = newMetrics(d.guard, d.proxy, &d.events)
	d.serveHTTP(beside, admin, d.api(), adminBounds())
	if d.config.Admin.Metrics != "" {
		l, err := net.Listen("tcp", d.config.Admin.Metrics)
		if err != nil {
			return faultAt("admin", "metrics", "%v; name another address, or \"\" for none", err)
		}
		d.serveHTTP(beside, l, d.metrics.handler(d), metricsBounds())
	}
	return d.proxy.Listen()
}

// openGuard opens the guard and has the names of its allow list resolved.
func (d *daemon) openGuard(ctx, beside context.Context) error {
	opt, err := guardOptions(ctx, d.config)
	if err != nil {
		return err
	}
	opt.Store, opt.Log, opt.Now = d.config.Store, d.log, wallClock
	if d.guard, err = guard.Open(d.config.Guard, opt); err != nil {
		return fmt.Errorf("open the guard: %w", withOwnerHint(err))
	}
	log, err := openEventLog(d.config.Events, &d.events, d.log)
	if err != nil {
		return err
	}
	d.events.log.Store(log)
	d.guard.Follow(d.events.note) // until the guard is closed
	d.names = newResolver(d.guard.SetAllowedNames, d.log)
	d.names.watch(d.config.Guard.AllowedNames())
	d.running.Go(func() { d.names.run(beside) })
	return nil
}

// withOwnerHint adds what to do to an error about a store that we may not use:
// mostly it was made by a run as root.
func withOwnerHint(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; the store's directory and its files must belong to the user that mailreeve runs as (chown -R mailreeve: /var/lib/mailreeve)", err)
	}
	return err
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
	return errors.Join(d.guard.Close(), d.events.use(nil))
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
