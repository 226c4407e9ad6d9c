package testbed

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/BurntSushi/toml"
)

// A Config is a mailreeve configuration file. What is left out is left out of
// the file, except for what a test always needs: certificates, the admin
// socket, the metrics' address, the store and the listeners' ports, which
// [Bed.NewProxy] fills in.
type Config struct {
	Hostname     string           `toml:"hostname,omitempty"`
	Log          map[string]any   `toml:"log"`
	Admin        map[string]any   `toml:"admin"`
	Store        map[string]any   `toml:"store"`
	Guard        map[string]any   `toml:"guard"`
	Events       map[string]any   `toml:"events,omitempty"`
	Timeouts     map[string]any   `toml:"timeouts,omitempty"`
	Limits       map[string]any   `toml:"limits,omitempty"`
	Enforce      map[string]any   `toml:"enforce"`
	Certificates []Certificate    `toml:"certificate"`
	Upstreams    []Upstream       `toml:"upstream"`
	Listeners    []Listener       `toml:"listener"`
	Replies      []map[string]any `toml:"reply,omitempty"`
}

// A Certificate is a pair of files.
type Certificate struct {
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
}

// An Upstream is a server behind the proxy.
type Upstream struct {
	Name          string   `toml:"name"`
	Addresses     []string `toml:"addresses"`
	ProxyProtocol string   `toml:"proxy-protocol,omitempty"`
	TLS           string   `toml:"tls,omitempty"`
	ServerName    string   `toml:"server-name,omitempty"`
	CA            string   `toml:"ca,omitempty"`
	ProbeInterval string   `toml:"probe-interval,omitempty"`
}

// A Listener is a port of the proxy. Address is chosen by NewProxy if empty.
type Listener struct {
	Name           string   `toml:"name"`
	Address        string   `toml:"address"`
	Protocol       string   `toml:"protocol"`
	TLS            string   `toml:"tls"`
	Upstream       string   `toml:"upstream"`
	Scope          string   `toml:"scope,omitempty"`
	TrustedProxies []string `toml:"trusted-proxies,omitempty"`
	Auth           *bool    `toml:"auth,omitempty"`
	PlaintextAuth  string   `toml:"plaintext-auth,omitempty"`
	GreetDelay     string   `toml:"greet-delay,omitempty"`
}

// quiet switches every rule off, so that a test switches on what it is about
// and no other rule answers in its place. Loopback is not exempt: all clients
// are there.
func quiet() map[string]any {
	return map[string]any{
		"authentication": "off", "authentication-slow": "off", "login": "off",
		"invalid-rcpt": "off", "loitering": "off", "spray": "off",
		"network": "off", "abuse": "off", "exempt-local": false,
	}
}

// Rules are settings of [guard] on top of all rules being off.
func Rules(settings map[string]any) map[string]any {
	guard := quiet()
	maps.Copy(guard, settings)
	return guard
}

// Standard is mailreeve in front of the real servers, with every port that
// people know: mx, submission, submissions, imap, imaps.
func (b *Bed) Standard(rules map[string]any) Config {
	return Config{
		Hostname: "mx.example.test",
		Guard:    Rules(rules),
		Upstreams: []Upstream{
			{Name: "postfix-mx", Addresses: []string{loopback(b.Postfix.MXProxy)}},
			{Name: "postfix-submission", Addresses: []string{loopback(b.Postfix.SubmissionProxy)}},
			{Name: "dovecot-imap", Addresses: []string{loopback(b.Dovecot.IMAPProxy)}},
		},
		Listeners: []Listener{
			{Name: "mx", Protocol: "smtp", TLS: "starttls", Upstream: "postfix-mx"},
			{Name: "submission", Protocol: "submission", TLS: "starttls", Upstream: "postfix-submission"},
			{Name: "submissions", Protocol: "submission", TLS: "implicit", Upstream: "postfix-submission"},
			{Name: "imap", Protocol: "imap", TLS: "starttls", Upstream: "dovecot-imap"},
			{Name: "imaps", Protocol: "imap", TLS: "implicit", Upstream: "dovecot-imap"},
		},
	}
}

// InFront is mailreeve with one listener, named as its protocol, in front of
// one server.
func InFront(protocol, tls string, port int, rules map[string]any) Config {
	return Config{
		Hostname:  "mx.example.test",
		Guard:     Rules(rules),
		Upstreams: []Upstream{{Name: "server", Addresses: []string{loopback(port)}}},
		Listeners: []Listener{{Name: protocol, Protocol: protocol, TLS: tls, Upstream: "server"}},
	}
}

// Without leaves out listeners.
func (c Config) Without(names ...string) Config {
	c.Listeners = slices.DeleteFunc(slices.Clone(c.Listeners), func(l Listener) bool {
		return slices.Contains(names, l.Name)
	})
	return c
}

func (c Config) encode() ([]byte, error) {
	var text bytes.Buffer
	if err := toml.NewEncoder(&text).Encode(c); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	return text.Bytes(), nil
}
