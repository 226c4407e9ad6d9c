package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// serveVerb runs the program until SIGTERM or SIGINT.
func serveVerb(*flag.FlagSet) action {
	return func(ctx context.Context, in *invocation, args []string) error {
		if err := noArguments(args); err != nil {
			return err
		}
		sockets, empty := systemdSockets()
		c, err := loadConfig(in.config)
		if err != nil {
			return errors.Join(&exitError{exitConfig, err}, empty())
		}
		level := new(slog.LevelVar)
		log, flush := newLogger(in.stderr, c.Log, level)
		defer flush()
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)

		d, err := start(ctx, in.config, c, sockets, log, level)
		if err != nil {
			return errors.Join(err, empty())
		}
		log.Info("serving", "version", buildVersion().String(), "config", in.config,
			"listeners", len(c.Listeners), "admin", c.Admin.Socket, "metrics", c.Admin.Metrics)
		d.proxy.AwaitLook(ctx)
		tellSystemd(log, sd.SdNotifyReady)
		go keepMemory(ctx)
		go d.keepWatchdog(ctx)
		d.obey(ctx, hup)
		tellSystemd(log, sd.SdNotifyStopping)
		log.Info("draining", "at_most", c.Timeouts.Drain.String())
		err = d.stop()
		log.Info("stopped")
		return err
	}
}

// obey reloads at each SIGHUP until ctx ends.
func (d *daemon) obey(ctx context.Context, hup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			tellSystemd(d.log, sd.SdNotifyReloading+"\n"+sd.SdNotifyMonotonicUsec())
			_ = d.reload() // It has logged how it went.
			tellSystemd(d.log, sd.SdNotifyReady)
		}
	}
}
