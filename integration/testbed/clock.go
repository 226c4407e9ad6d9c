package testbed

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// clockSource takes the place of cmd/mailreeve/clock.go in the program that
// [Bed.NewProxyWithClock] runs. It tells the time that is in a file.
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
	now, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		panic(err)
	}
	return now
}
`

// NewProxyWithClock is NewProxy with a clock that stands still until the test
// moves it. It is the guard's: bans, windows and the trickle have the test's
// time, sockets and timeouts the real one.
func (b *Bed) NewProxyWithClock(t testing.TB, cfg Config) *Proxy {
	t.Helper()
	p := b.PrepareProxy(t, cfg)
	bin, err := b.clockBinary()
	if err != nil {
		t.Fatal(err)
	}
	p.bin, p.clock = bin, filepath.Join(p.Dir, "clock")
	p.SetClock(time.Now())
	p.Start()
	return p
}

// SetClock sets the guard's clock.
func (p *Proxy) SetClock(now time.Time) {
	p.t.Helper()
	p.now = now.Round(0)
	// Whoever reads must find the old or the new one whole.
	next := p.clock + ".next"
	if err := os.WriteFile(next, []byte(p.now.Format(time.RFC3339Nano)), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(next, p.clock); err != nil {
		p.t.Fatal(err)
	}
}

// Now is the guard's time.
func (p *Proxy) Now() time.Time { return p.now }

// Pass lets time pass for the guard; less than none sets its clock back.
func (p *Proxy) Pass(d time.Duration) {
	p.t.Helper()
	p.SetClock(p.now.Add(d))
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
