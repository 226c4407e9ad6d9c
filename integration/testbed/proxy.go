package testbed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Proxy is a running mailreeve.
type Proxy struct {
	// Dir has its configuration, log, store and certificates.
	Dir string
	// Config is what it was started with, complete.
	Config Config
	// Log is what it writes to standard error.
	Log LogFile

	t       testing.TB
	bed     *Bed
	bin     string
	host    *Host
	web     *http.Client
	metrics string
	proc    *process
	// clock is the file with the guard's time, and now what it says; see
	// NewProxyWithClock.
	clock string
	now   time.Time
	// seen are metrics as they were before every end of the process, for the
	// search for secrets.
	seen []byte
	// goroutines is how many there were once it was ready.
	goroutines float64
}

// NewProxy starts mailreeve and waits until it is ready. When the test is over
// it is stopped, and must then have left neither a goroutine, a data race, a
// panic nor a password behind.
func (b *Bed) NewProxy(t testing.TB, cfg Config) *Proxy {
	t.Helper()
	return b.NewProxyOn(t, nil, cfg)
}

// NewProxyOn is NewProxy on a machine of its own.
func (b *Bed) NewProxyOn(t testing.TB, host *Host, cfg Config) *Proxy {
	t.Helper()
	p := b.PrepareProxy(t, cfg)
	p.host, p.web = host, host.web()
	p.Start()
	return p
}

// PrepareProxy writes the configuration but starts nothing.
func (b *Bed) PrepareProxy(t testing.TB, cfg Config) *Proxy {
	t.Helper()
	bin, err := b.Binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := b.TempDir(t)
	p := &Proxy{Dir: dir, web: http.DefaultClient, Log: LogFile(filepath.Join(dir, "mailreeve.log")), t: t, bed: b, bin: bin}
	ports, err := freePorts(len(cfg.Listeners) + 1)
	if err != nil {
		t.Fatal(err)
	}
	p.metrics = loopback(ports[0])
	cfg.Listeners = slices.Clone(cfg.Listeners)
	for i := range cfg.Listeners {
		if cfg.Listeners[i].Address == "" {
			cfg.Listeners[i].Address = loopback(ports[i+1])
		}
	}
	if cfg.Certificates == nil {
		if err := b.CA.Issue(filepath.Join(dir, "mx"), "mx.example.test", "imap.example.test"); err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []Certificate{{filepath.Join(dir, "mx.pem"), filepath.Join(dir, "mx.key")}}
	}
	cfg.Log = withDefaults(cfg.Log, map[string]any{"level": "debug"})
	cfg.Admin = withDefaults(cfg.Admin, map[string]any{
		"socket": filepath.Join(dir, "admin.sock"), "metrics": p.metrics,
	})
	cfg.Enforce = withDefaults(cfg.Enforce, map[string]any{"kernel-filter": KernelFilter()})
	cfg.Store = withDefaults(cfg.Store, map[string]any{"path": filepath.Join(dir, "store")})
	p.Config = cfg
	p.WriteConfig(cfg)
	return p
}

func withDefaults(table, defaults map[string]any) map[string]any {
	merged := maps.Clone(defaults)
	maps.Copy(merged, table)
	return merged
}

// configFile is where the configuration is, in Dir.
const configFile = "config.toml"

// WriteConfig replaces the configuration file. A running mailreeve reads it
// with Admin("reload").
func (p *Proxy) WriteConfig(cfg Config) {
	p.t.Helper()
	text, err := cfg.encode()
	if err != nil {
		p.t.Fatal(err)
	}
	p.WriteConfigText(string(text))
}

// WriteConfigText replaces the configuration file by any text.
func (p *Proxy) WriteConfigText(text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.Dir, configFile), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// ConfigText returns the configuration file.
func (p *Proxy) ConfigText() string {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.Dir, configFile))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// Start runs mailreeve and waits until it is ready.
func (p *Proxy) Start() {
	p.t.Helper()
	p.launch()
	p.t.Cleanup(p.finish)
	p.awaitReady()
}

func (p *Proxy) launch() {
	p.t.Helper()
	cmd := exec.Command(p.bin, "serve", "--config", filepath.Join(p.Dir, configFile))
	// A race must not end the process: the test shall say which it was.
	cmd.Env = append(os.Environ(), "GORACE=halt_on_error=0 exitcode=66", "MAILREEVE_TEST_CLOCK="+p.clock)
	var err error
	p.host.do(func() { p.proc, err = startProcess(string(p.Log), cmd) })
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *Proxy) awaitReady() {
	p.t.Helper()
	ready := await(patience, func() bool { return p.proc.ended() || p.Ready() })
	if !ready || p.proc.ended() {
		p.t.Fatalf("mailreeve is not ready:\n%s", lastLines(p.Log.Text(), 30))
	}
	p.goroutines = p.Goroutines()
}

// Ready tells whether /readyz says so.
func (p *Proxy) Ready() bool {
	resp, err := p.web.Get("http://" + p.metrics + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Port is the port of the listener of that name.
func (p *Proxy) Port(listener string) int {
	p.t.Helper()
	for _, l := range p.Config.Listeners {
		if l.Name == listener {
			port, err := strconv.Atoi(l.Address[strings.LastIndexByte(l.Address, ':')+1:])
			if err != nil {
				p.t.Fatalf("address of listener %q: %v", listener, err)
			}
			return port
		}
	}
	p.t.Fatalf("no listener is named %q", listener)
	return 0
}

// Guess prepares a login at a listener.
func (p *Proxy) Guess(listener, from, login, password string) Guess {
	p.t.Helper()
	g := Guess{From: from, Port: p.Port(listener), Login: login, Password: password}
	for _, l := range p.Config.Listeners {
		if l.Name == listener {
			g.Protocol, g.TLS = l.Protocol, l.TLS
		}
	}
	return g
}

// Run runs one of mailreeve's commands with this proxy's configuration.
func (p *Proxy) Run(args ...string) (stdout, stderr string, err error) {
	cmd := exec.Command(p.bin, append(args, "--config", filepath.Join(p.Dir, configFile))...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// Admin runs a command that must succeed, and returns what it printed.
func (p *Proxy) Admin(args ...string) string {
	p.t.Helper()
	out, errs, err := p.Run(args...)
	if err != nil {
		p.t.Fatalf("mailreeve %v: %v\n%s%s", args, err, out, errs)
	}
	return out
}

// A Ban is what the tests look at of what `bans --json` tells.
type Ban struct {
	Target string    `json:"target"`
	Scope  string    `json:"scope"`
	Rule   string    `json:"rule"`
	Until  time.Time `json:"until"`
}

// Bans are the bans in force.
func (p *Proxy) Bans() []Ban {
	p.t.Helper()
	var bans []Ban
	p.decode(p.Admin("bans", "--json"), "bans", &bans)
	return bans
}

// Banned tells whether an address is banned, and gives the ban.
func (p *Proxy) Banned(address string) (Ban, bool) {
	p.t.Helper()
	for _, b := range p.Bans() {
		if b.Target == address || b.Target == address+"/32" {
			return b, true
		}
	}
	return Ban{}, false
}

// Points are the points of all rules that count against an address, a network
// or a login now.
func (p *Proxy) Points(target string) float64 {
	p.t.Helper()
	var why struct {
		Scores []struct {
			Points float64 `json:"points"`
		} `json:"scores"`
	}
	p.decode(p.Admin("why", target, "--json"), "", &why)
	var sum float64
	for _, s := range why.Scores {
		sum += s.Points
	}
	return sum
}

// decode reads an answer of the API, which may have the list under a key.
func (p *Proxy) decode(text, key string, into any) {
	p.t.Helper()
	err := json.Unmarshal([]byte(text), into)
	if err != nil && key != "" {
		var wrapped map[string]json.RawMessage
		if json.Unmarshal([]byte(text), &wrapped) == nil && wrapped[key] != nil {
			err = json.Unmarshal(wrapped[key], into)
		}
	}
	if err != nil {
		p.t.Fatalf("the API's answer %q: %v", text, err)
	}
}

// Kill9 ends mailreeve as a power cut would.
func (p *Proxy) Kill9() {
	p.t.Helper()
	p.keepMetrics()
	if err := ignoreExit(p.proc.stop(syscall.SIGKILL, patience)); err != nil {
		p.t.Fatal(err)
	}
}

// Restart starts mailreeve again after Kill9 or Stop.
func (p *Proxy) Restart() {
	p.t.Helper()
	p.launch()
	p.awaitReady()
}

// Stop ends mailreeve as a service manager does; it must end in time and say
// that all is well.
func (p *Proxy) Stop() {
	p.t.Helper()
	p.keepMetrics()
	if err := p.proc.stop(syscall.SIGTERM, time.Minute); err != nil {
		p.t.Errorf("mailreeve ended with: %v\n%s", err, lastLines(p.Log.Text(), 30))
	}
}

// HUP sends SIGHUP, which reloads.
func (p *Proxy) HUP() {
	p.t.Helper()
	if err := p.proc.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		p.t.Fatal(err)
	}
}

func (p *Proxy) keepMetrics() {
	if text, err := p.metricsText(); err == nil {
		p.seen = append(p.seen, text...)
	}
}

// finish is the end of every test with a proxy.
func (p *Proxy) finish() {
	if !p.proc.ended() {
		if p.goroutines > 0 { // else it never was ready
			p.checkGoroutines()
		}
		p.Stop()
	}
	for _, sign := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if lines := p.Log.Lines(sign); len(lines) > 0 {
			p.t.Errorf("mailreeve's log has %q; see %s", sign, p.keepLog())
		}
	}
	found, err := p.bed.Secrets.FindInFiles(p.Dir)
	if err != nil {
		p.t.Error(errors.Join(errors.New("search for secrets"), err))
	}
	found = append(found, p.bed.Secrets.Find("/metrics", p.seen)...)
	for _, f := range found {
		p.t.Errorf("a secret leaked: %s", f)
	}
	if p.t.Failed() {
		p.t.Logf("the last lines of mailreeve's log:\n%s", lastLines(p.Log.Text(), 40))
	}
}

// keepLog copies the log to where it outlives the run.
func (p *Proxy) keepLog() string {
	kept, err := os.CreateTemp("", "mailreeve-*.log")
	if err != nil {
		return err.Error()
	}
	defer kept.Close()
	fmt.Fprint(kept, p.Log.Text())
	return kept.Name()
}

// goroutineSlack is what may be more than at the start with all clients gone:
// the HTTP connection that the metrics are read over, and timers of the probes.
const goroutineSlack = 6

// Goroutines is how many there are that do not just wait for a connection.
func (p *Proxy) Goroutines() float64 {
	p.t.Helper()
	return p.Metric(metricGoroutines, nil) - p.Metric(metricWaiting, nil)
}

// checkGoroutines waits until what served the test's clients is gone.
func (p *Proxy) checkGoroutines() {
	var now float64
	gone := await(patience, func() bool {
		now = p.Goroutines()
		return now <= p.goroutines+goroutineSlack
	})
	if !gone {
		p.t.Errorf("%v goroutines are left, %v at the start; %v connections are open",
			now, p.goroutines, p.Metric(MetricConnections, nil))
	}
}
