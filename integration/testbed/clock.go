package testbed

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// clockSource takes the place of cmd/mailreeve/clock.go in the program that
// [Bed.NewProxyWithClock] runs. Its clock differs from the machine's by what is
// in a file. It has no monotonic reading, as after a suspended machine's wake-up
// or over a restart: to the guard every jump is a jump.
const clockSource = `package main

import (
	"os"
	"time"
)

func wallClock() time.Time {
	text, err := os.ReadFile(os.Getenv("MAILREEVE_TEST_CLOCK"))
	if err != nil {
		panic(err)
	}
	ahead, err := time.ParseDuration(string(text))
	if err != nil {
		panic(err)
	}
	return time.Now().Round(0).Add(ahead)
}
`

// NewProxyWithClock is NewProxy with a clock that the test sets: the guard's
// only, so that bans, windows and the trickle take the test's time, while
// sockets and timeouts take real time.
func (b *Bed) NewProxyWithClock(t testing.TB, cfg Config) *Proxy {
	t.Helper()
	p := b.PrepareProxy(t, cfg)
	bin, err := b.clockBinary()
	if err != nil {
		t.Fatal(err)
	}
	p.bin, p.clock = bin, filepath.Join(p.Dir, "clock")
	p.SetClock(0)
	p.Start()
	return p
}

// SetClock puts the guard's clock ahead of the machine's, or behind.
func (p *Proxy) SetClock(ahead time.Duration) {
	p.t.Helper()
	p.ahead = ahead
	// Whoever reads must find the old or the new one whole.
	next := p.clock + ".next"
	if err := os.WriteFile(next, []byte(ahead.String()), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(next, p.clock); err != nil {
		p.t.Fatal(err)
	}
}

// Pass lets time pass for the guard.
func (p *Proxy) Pass(d time.Duration) {
	p.t.Helper()
	p.SetClock(p.ahead + d)
}

// clockBinary builds mailreeve with the clock that tests set.
func (b *Bed) clockBinary() (string, error) {
	b.clockBin.once.Do(func() {
		source := filepath.Join(b.dir, "clock.go")
		if b.clockBin.err = os.WriteFile(source, []byte(clockSource), 0o600); b.clockBin.err != nil {
			return
		}
		overlay, _ := json.Marshal(map[string]any{"Replace": map[string]string{
			filepath.Join(b.root, "cmd/mailreeve/clock.go"): source,
		}}) // strings always marshal
		file := filepath.Join(b.dir, "overlay.json")
		if b.clockBin.err = os.WriteFile(file, overlay, 0o600); b.clockBin.err != nil {
			return
		}
		b.clockBin.path = filepath.Join(b.dir, "mailreeve-clock")
		b.clockBin.err = b.build(b.clockBin.path, "-overlay", file)
	})
	return b.clockBin.path, b.clockBin.err
}
