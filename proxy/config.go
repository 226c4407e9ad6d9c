package proxy

import (
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// Config is what the data path is told. The program's configuration file has
// the same tables.
type Config struct {
	// Hostname is the name we go by until a server's own is learnt.
	Hostname string

	Certificates []Certificate
	Upstreams    []Upstream
	Listeners    []Listener
	Timeouts     Timeouts
	Limits       Limits
	Enforce      Enforce
	Rows         []protocol.ReplyRow
}

// A Certificate is a pair of PEM files. The first one also serves clients that
// name no server, or one that no certificate is for.
type Certificate struct {
	// Cert is the chain, leaf first; Key its private key.
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
}

// ProxyProtocol is the header that an upstream is sent.
type ProxyProtocol string

const (
	ProxyV2   ProxyProtocol = "v2"
	ProxyV1   ProxyProtocol = "v1"
	ProxyNone ProxyProtocol = "none"
	// ProxyXClient is no header: the server is told in its own dialogue.
	ProxyXClient ProxyProtocol = "xclient"
)

// An Upstream is a mail server that we stand in front of.
type Upstream struct {
	// Name is what listeners call it.
	Name string `toml:"name"`
	// Addresses are tried in turn, host:port each; the first that answers
	// serves.
	Addresses []string `toml:"addresses"`
	// ProxyProtocol tells the server who the client is: "v2" (default),
	// "v1", "none", or "xclient" for Postfix's command of that name (smtp and
	// submission only).
	ProxyProtocol ProxyProtocol `toml:"proxy-protocol"`
	// TLS to the server: "none" (default), "starttls" or "implicit".
	TLS protocol.TLSMode `toml:"tls"`
	// ServerName is the name that the server's certificate must carry; by
	// default the host of the address.
	ServerName string `toml:"server-name"`
	// CA is a PEM file of the authorities to trust instead of the system's.
	CA string `toml:"ca"`
	// Insecure accepts any certificate of the server.
	Insecure bool `toml:"insecure"`
	// Family names the server's make ("dovecot", "postfix", …) where the
	// probe cannot tell. "" leaves it to the probe.
	Family string `toml:"family"`
	// ProbeInterval is how often it is looked at. Default 60s.
	ProbeInterval guard.Duration `toml:"probe-interval"`
}

// A Listener is an address that clients connect to.
type Listener struct {
	// Name is its name in logs, metrics and bans.
	Name string `toml:"name"`
	// Address is where it listens: "192.0.2.1:25", "[2001:db8::1]:25", or
	// ":25" for all addresses, IPv4 and IPv6.
	Address string `toml:"address"`
	// Protocol is "smtp", "submission", "imap", "pop3" or "managesieve".
	Protocol string `toml:"protocol"`
	// TLS is "none", "starttls" or "implicit".
	TLS protocol.TLSMode `toml:"tls"`
	// Upstream is the name of the server behind.
	Upstream string `toml:"upstream"`
	// Scope is what bans are for: "mx", "auth" or a name of your own.
	Scope string `toml:"scope"`
	// TrustedProxies must send a PROXY header; nobody else may.
	TrustedProxies []string `toml:"trusted-proxies"`
	// Auth allows credentials on this listener. Default true, except for
	// protocol "smtp".
	Auth *bool `toml:"auth"`
	// OldCiphers allows suites of TLS 1.2 that are not authenticated encryption.
	// Default false, except for protocol "smtp".
	OldCiphers *bool `toml:"old-ciphers"`
	// PlaintextAuth allows credentials without TLS: "no" (default),
	// "private" for clients in private networks, or "yes".
	PlaintextAuth PlaintextAuth `toml:"plaintext-auth"`
	// MasterSeparator splits master logins such as "alice*master" into both
	// names. "" (default) splits none.
	MasterSeparator string `toml:"master-separator"`
	// GreetDelay holds the greeting of protocol "smtp" back, for those who
	// cannot wait for it to show. Default 0: they must not wait.
	GreetDelay guard.Duration `toml:"greet-delay"`
}

// PlaintextAuth says who may send credentials without TLS.
type PlaintextAuth string

const (
	PlaintextNo      PlaintextAuth = "no"
	PlaintextPrivate PlaintextAuth = "private"
	PlaintextYes     PlaintextAuth = "yes"
)

// Timeouts bound what a client may take. They do not run while the server owes
// a reply.
type Timeouts struct {
	// ProxyHeader bounds the wait for a trusted peer's PROXY header.
	ProxyHeader guard.Duration `toml:"proxy-header"`
	// Handshake bounds a TLS handshake.
	Handshake guard.Duration `toml:"handshake"`
	// FirstCommand bounds the wait for a client's first complete line.
	FirstCommand guard.Duration `toml:"first-command"`
	// Login bounds the time from the connection to a login, on listeners
	// where clients log in.
	Login guard.Duration `toml:"login"`
	// Mail bounds the time to an accepted MAIL, and then between
	// transactions, for clients of "smtp" that are not logged in.
	Mail guard.Duration `toml:"mail"`
	// Command bounds SMTP's silence between commands and within a message
	// (RFC 5321 section 4.5.3.2).
	Command guard.Duration `toml:"command"`
	// IMAPIdle and POP3Idle bound the silence of a client that is logged in
	// (RFC 9051 section 5.4: at least 30 minutes; RFC 1939: 10 minutes).
	IMAPIdle guard.Duration `toml:"imap-idle"`
	POP3Idle guard.Duration `toml:"pop3-idle"`
	// Dial bounds the connection to a server, with the handshake if TLS is
	// implicit. Greeting bounds the wait for its first line, and what STARTTLS
	// takes behind that.
	Dial     guard.Duration `toml:"dial"`
	Greeting guard.Duration `toml:"greeting"`
	// Drain is how long open connections may go on after SIGTERM.
	Drain guard.Duration `toml:"drain"`
}

// Limits bound how much there is at once.
type Limits struct {
	// Connections in all, and of one address (an IPv6 /64 is one address).
	Connections           int `toml:"connections"`
	ConnectionsPerAddress int `toml:"connections-per-address"`
	// ConnectionsPerNetwork is how many connections of one /24 (IPv6: /48) may
	// be there that have not logged in: else who has one network, which in
	// IPv6 costs nothing, has all connections.
	ConnectionsPerNetwork int `toml:"connections-per-network"`
	// ConnectionRate is how many connections of one address, NetworkRate of one
	// /24 (IPv6: /48), in how long are too many. Default off.
	ConnectionRate guard.Limit `toml:"connection-rate"`
	NetworkRate    guard.Limit `toml:"network-connection-rate"`
	// MinDataRate is how many bytes a second a client must send of a message,
	// beyond timeouts.command. 0: as slowly as it likes.
	MinDataRate int `toml:"min-data-rate"`
	// Handshakes is how many TLS handshakes are computed at the same time. One
	// that waits for its client takes no place.
	Handshakes int `toml:"handshakes"`
}

// bounds are those that concern a client.
func (l *Limits) bounds(exempt bool) bounds {
	if exempt {
		return bounds{all: l.Connections}
	}
	return bounds{l.Connections, l.ConnectionsPerAddress, l.ConnectionsPerNetwork}
}

// DefaultTimeouts are in force where the configuration is silent.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		ProxyHeader:  guard.Duration(5 * time.Second),
		Handshake:    guard.Duration(10 * time.Second),
		FirstCommand: guard.Duration(30 * time.Second),
		Login:        guard.Duration(3 * time.Minute),
		Mail:         guard.Duration(5 * time.Minute),
		Command:      guard.Duration(5 * time.Minute),
		IMAPIdle:     guard.Duration(31 * time.Minute),
		POP3Idle:     guard.Duration(10 * time.Minute),
		Dial:         guard.Duration(5 * time.Second),
		Greeting:     guard.Duration(60 * time.Second),
		Drain:        guard.Duration(30 * time.Second),
	}
}

// DefaultLimits are in force where the configuration is silent.
func DefaultLimits() Limits {
	return Limits{Connections: 9000, ConnectionsPerAddress: 100, ConnectionsPerNetwork: 500, MinDataRate: 100, Handshakes: 64}
}

// DefaultProbeInterval is how often an upstream is looked at.
const DefaultProbeInterval = guard.Duration(60 * time.Second)
