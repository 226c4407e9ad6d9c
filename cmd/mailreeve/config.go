package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"mailreeve/guard"
	"mailreeve/protocol"
	"mailreeve/proxy"
)

// A Config is the configuration file. Every package owns its own part; this
// struct only puts them together.
type Config struct {
	// Hostname is the name we go by; "" takes the machine's.
	Hostname string `toml:"hostname"`

	Log          LogConfig           `toml:"log"`
	Admin        AdminConfig         `toml:"admin"`
	Store        guard.StoreConfig   `toml:"store"`
	Certificates []proxy.Certificate `toml:"certificate"`
	Upstreams    []proxy.Upstream    `toml:"upstream"`
	Listeners    []proxy.Listener    `toml:"listener"`
	Guard        guard.Config        `toml:"guard"`
	Events       EventsConfig        `toml:"events"`
	Timeouts     proxy.Timeouts      `toml:"timeouts"`
	Limits       proxy.Limits        `toml:"limits"`
	Enforce      proxy.Enforce       `toml:"enforce"`
	Replies      []protocol.ReplyRow `toml:"reply"`
}

// A LogConfig says what the log on standard error looks like.
type LogConfig struct {
	// Level is the least level that is written: "debug", "info", "warn" or
	// "error".
	Level string `toml:"level"`
	// Format is "text" or "json".
	Format string `toml:"format"`
}

// An AdminConfig says where the operator reaches the running program.
type AdminConfig struct {
	// Socket is the Unix socket of the admin API, mode 0660.
	Socket string `toml:"socket"`
	// Metrics is the address that serves /metrics, /healthz and /readyz; ""
	// serves none.
	Metrics string `toml:"metrics"`
}

// Where things are unless the operator says otherwise.
const (
	defaultConfigFile = "/etc/mailreeve/config.toml"
	defaultSocket     = "/run/mailreeve/admin.sock"
	defaultMetrics    = "127.0.0.1:9325"
)

// maxConfigSize bounds the configuration file in bytes, so that a wrong path
// (a mailbox, a device) is an error and not a full memory.
const maxConfigSize = 8 << 20

// defaultConfig is in force where the file is silent.
func defaultConfig() Config {
	return Config{
		Log:      LogConfig{Level: "info", Format: "text"},
		Admin:    AdminConfig{Socket: defaultSocket, Metrics: defaultMetrics},
		Store:    guard.DefaultStoreConfig(),
		Guard:    guard.DefaultConfig(),
		Timeouts: proxy.DefaultTimeouts(),
		Limits:   proxy.DefaultLimits(),
		Enforce:  proxy.DefaultEnforce(),
		Events:   defaultEvents(),
	}
}

// loadConfig reads and checks a configuration file. It opens nothing else.
func loadConfig(path string) (*Config, error) {
	text, err := readConfigFile(path)
	if err != nil {
		return nil, err
	}
	return parseConfig(path, text)
}

func readConfigFile(path string) (string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%s does not exist; name another with --config FILE, or start from config.toml.example", path)
	}
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() && info.Mode()&os.ModeNamedPipe == 0 {
		return "", fmt.Errorf("%s is not a file", path)
	}
	if info.Size() > maxConfigSize {
		return "", fmt.Errorf("%s has %d bytes; a configuration has at most %d", path, info.Size(), maxConfigSize)
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

// parseConfig decodes a configuration on top of the defaults, strictly, and
// checks it. All unknown keys are told at once, of other faults the first.
func parseConfig(file, text string) (*Config, error) {
	c := defaultConfig()
	md, err := toml.Decode(text, &c)
	if err != nil {
		return nil, decodeError(file, text, err)
	}
	where := locate(text)
	if err := unknownKeys(file, where, md.Undecoded()); err != nil {
		return nil, err
	}
	if err := errors.Join(c.check(), missingLimits(text)); err != nil {
		return nil, placeError(file, where, err)
	}
	return &c, nil
}

// missingLimits refuses rules without a limit: decoded they look as if somebody
// had switched them off, and would silently do nothing.
func missingLimits(text string) error {
	var given struct {
		Guard struct {
			Rule []struct{ Limit *guard.Limit }
		}
	}
	if _, err := toml.Decode(text, &given); err != nil {
		return err // not after it has been decoded once
	}
	for i, r := range given.Guard.Rule {
		if r.Limit == nil {
			return &guard.KeyError{Key: fmt.Sprintf("rule[%d].limit", i), Err: errors.New(`is missing; write points/period like "10/1h", or "off"`)}
		}
	}
	return nil
}

// check fills in what was left out and checks every part.
func (c *Config) check() error {
	if err := c.Log.check(); err != nil {
		return err
	}
	if err := c.Admin.check(); err != nil {
		return err
	}
	if err := c.Events.check(); err != nil {
		return err
	}
	if len(c.Listeners) == 0 {
		return faultAt("listener", "", "there is none; without a [[listener]] there is nothing to do")
	}
	p := c.proxyConfig()
	if err := p.Normalize(); err != nil {
		return err
	}
	c.Upstreams, c.Listeners, c.Enforce = p.Upstreams, p.Listeners, p.Enforce
	if err := c.Store.Validate(); err != nil {
		return storeFault(err)
	}
	if err := c.Guard.Validate(); err != nil {
		return err
	}
	for i, r := range c.Guard.Rules {
		if err := c.checkScope(r.Scope); err != nil {
			return &guard.KeyError{Key: fmt.Sprintf("rule[%d].scope", i), Err: err}
		}
	}
	return nil
}

// checkScope refuses a scope that no listener is in: a ban there would keep
// nobody out. The usual ones are taken, for another node of a fleet may have
// such listeners.
func (c *Config) checkScope(scope string) error {
	known := []string{"all", "auth", "mx"}
	for _, l := range c.Listeners {
		known = append(known, l.Scope, l.Name)
	}
	slices.Sort(known)
	if known = slices.Compact(known); scope == "" || slices.Contains(known, scope) {
		return nil
	}
	return fmt.Errorf("no listener has the scope or the name %q; there are %s", scope, strings.Join(known, ", "))
}

// storeFault takes apart "store.key: what is wrong".
func storeFault(err error) error {
	key, msg, found := strings.Cut(strings.TrimPrefix(err.Error(), "store."), ": ")
	if !found {
		return faultAt("store", "", "%v", err)
	}
	return faultAt("store", key, "%s", msg)
}

func faultAt(table, key, format string, args ...any) error {
	return &proxy.ConfigError{
		Element: proxy.Element{Table: table, Key: key},
		Msg:     fmt.Sprintf(format, args...),
	}
}

func (l *LogConfig) check() error {
	if _, err := l.level(); err != nil {
		return err
	}
	if l.Format != "text" && l.Format != "json" {
		return faultAt("log", "format", "%q is unknown; use \"text\" or \"json\"", l.Format)
	}
	return nil
}

func (l *LogConfig) level() (slog.Level, error) {
	switch l.Level {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, faultAt("log", "level", "%q is unknown; use \"debug\", \"info\", \"warn\" or \"error\"", l.Level)
}

// maxSocketPath is what fits in a Unix socket's address (unix(7)).
const maxSocketPath = 107

func (a *AdminConfig) check() error {
	if a.Socket == "" {
		return faultAt("admin", "socket", "is empty; mailreeve's commands need it, give a path such as %q", defaultSocket)
	}
	if len(a.Socket) > maxSocketPath {
		return faultAt("admin", "socket", "has %d bytes; a socket's path has at most %d", len(a.Socket), maxSocketPath)
	}
	if a.Metrics == "" {
		return nil
	}
	if _, port, err := net.SplitHostPort(a.Metrics); err != nil || port == "" {
		return faultAt("admin", "metrics", "%q is not host:port; give one such as %q, or \"\" for none", a.Metrics, defaultMetrics)
	}
	return nil
}

// proxyConfig is the data path's part.
func (c *Config) proxyConfig() proxy.Config {
	return proxy.Config{
		Hostname:     c.hostname(),
		Certificates: c.Certificates,
		Upstreams:    c.Upstreams,
		Listeners:    c.Listeners,
		Timeouts:     c.Timeouts,
		Limits:       c.Limits,
		Enforce:      c.Enforce,
		Rows:         c.Replies,
	}
}

// hostname is the configured name or the machine's.
func (c *Config) hostname() string {
	if c.Hostname != "" {
		return c.Hostname
	}
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return "localhost"
}
