package main

import (
	"context"
	"log/slog"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// tellSystemd reports a state where systemd started us, else does nothing.
func tellSystemd(log *slog.Logger, state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		log.Warn("systemd could not be notified", "state", state, "error", err)
	}
}

// keepWatchdog tells systemd that we live, twice in the time that the unit's
// WatchdogSec gives us, until ctx ends. Each time it takes the locks that a
// connection and a decision need: if one is never given back we fall silent,
// systemd aborts us with all stacks in the journal and starts us again.
func (d *daemon) keepWatchdog(ctx context.Context) {
	patience, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("systemd's watchdog is not answered", "error", err)
	}
	if patience <= 0 {
		return
	}
	tick := time.NewTicker(patience / 2)
	defer tick.Stop()
	for {
		d.proxy.Status()
		d.guard.Status()
		tellSystemd(d.log, sd.SdNotifyWatchdog)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
