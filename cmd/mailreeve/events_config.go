package main

import "fmt"

// An EventsConfig says whether and where the event log is kept.
type EventsConfig struct {
	// Log is the file; "" keeps none.
	Log string `toml:"log"`
	// MaxMegabytes is how large the file gets before it is put aside as
	// Log.1, Log.1 as Log.2 and so on.
	MaxMegabytes int `toml:"max-megabytes"`
	// Keep is how many files are kept that way.
	Keep int `toml:"keep"`
}

// defaultEvents holds about two weeks of a server that is attacked once a
// second: an event is about 300 bytes.
func defaultEvents() EventsConfig { return EventsConfig{MaxMegabytes: 64, Keep: 8} }

func (c *EventsConfig) check() error {
	for _, n := range []struct {
		key        string
		value, max int
	}{
		{"max-megabytes", c.MaxMegabytes, 10_000},
		{"keep", c.Keep, 1000},
	} {
		if n.value < 1 || n.value > n.max {
			return faultAt("events", n.key, "%d is out of range, from 1 to %d", n.value, n.max)
		}
	}
	return nil
}

// rotated names the n-th file put aside.
func (c *EventsConfig) rotated(n int) string { return fmt.Sprintf("%s.%d", c.Log, n) }
