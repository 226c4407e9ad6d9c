package main

import (
	"context"
	"errors"
	"reflect"
	"time"

	"mailreeve/guard"
)

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
		return inFile(d.file, err)
	}
	oldOpt, err := guardOptions(ctx, old)
	if err != nil {
		oldOpt = opt // The old alias file is gone; the new one is nearest.
	}
	events := d.events.log.Load()
	if next.Events != old.Events {
		if events, err = openEventLog(next.Events, &d.events, d.log); err != nil {
			return err
		}
	}
	if err := inFile(d.file, d.takeOver(old, next, oldOpt, opt)); err != nil {
		if events != nil && next.Events != old.Events {
			err = errors.Join(err, events.close())
		}
		return err
	}
	if next.Events != old.Events {
		if err := d.events.use(events); err != nil {
			d.log.Warn("the old event log", "error", err)
		}
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

// takeOver puts guard and proxy under the next configuration, or leaves both
// under the old.
func (d *daemon) takeOver(old, next *Config, oldOpt, opt guard.Options) error {
	if err := d.guard.Reconfigure(next.Guard, opt); err != nil {
		return err
	}
	if err := d.proxy.Reload(next.proxyConfig()); err != nil {
		return errors.Join(err, d.guard.Reconfigure(old.Guard, oldOpt))
	}
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
		{"store", "", reflect.DeepEqual(old.Store, next.Store)},
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
