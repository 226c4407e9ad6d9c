package protocol

// Kind is an event's kind: its name in the configuration, in logs and metrics.
type Kind string

// The kinds of events. What each is worth is one table in package guard.
const (
	// AuthFailure: the server refused a login or password. It is not sent as
	// an event by a conversation; it is a credential's Failure.
	AuthFailure Kind = "auth-failure"
	// InvalidRcpt: the server knows no such recipient.
	InvalidRcpt Kind = "invalid-rcpt"
	// RelayDenied: the client asked the server to relay.
	RelayDenied Kind = "relay-denied"
	// GoodRcpt: a recipient whose message was accepted after its last byte.
	// It scores nothing; it is the other side of invalid-rcpt's share.
	GoodRcpt Kind = "good-rcpt"
	// Loitering: our timer ended a connection that had neither logged in nor
	// delivered anything.
	Loitering Kind = "loitering"
	// EarlyTalk: bytes before our greeting, by a client that wanted the server.
	EarlyTalk Kind = "early-talk"
	// ForeignProtocol: HTTP or another protocol's words.
	ForeignProtocol Kind = "foreign-protocol"
	// BareNewline: a bare CR or LF where it could smuggle.
	BareNewline Kind = "bare-newline"
	// Injection: bytes pipelined behind STARTTLS.
	Injection Kind = "injection"
	// Pipelining: commands sent where a reply must be awaited.
	Pipelining Kind = "pipelining"
	// BadCommand: the server, or we, did not know the command.
	BadCommand Kind = "bad-command"
	// TooManyErrors: the server gave up on the client.
	TooManyErrors Kind = "too-many-errors"
	// LineTooLong: a line over its bound.
	LineTooLong Kind = "line-too-long"
	// PlaintextAuth: a credential offered without TLS and refused by us.
	PlaintextAuth Kind = "plaintext-auth"
	// UnknownMechanism: a SASL mechanism that the server does not have.
	UnknownMechanism Kind = "unknown-mechanism"
	// AuthAborted: an exchange the client gave up or garbled.
	AuthAborted Kind = "auth-aborted"
	// AuthNotOffered: AUTH where it was not offered.
	AuthNotOffered Kind = "auth-not-offered"
	// HeloRejected: the server refused the name in HELO or EHLO.
	HeloRejected Kind = "helo-rejected"
	// SenderRejected: the server refused the sender.
	SenderRejected Kind = "sender-rejected"
	// ClientRejected: the server refused the client's host.
	ClientRejected Kind = "client-rejected"
	// ListedClient: the server refused the client for a DNS blocklist.
	ListedClient Kind = "listed-client"
	// SlowDrip: a message so slow that it only kept the server busy.
	SlowDrip Kind = "slow-drip"
	// TLSFailure: a TLS handshake that failed, or was none.
	TLSFailure Kind = "tls-failure"
	// LeftSilently: the client left without a word, LeftEarly: with some, but
	// before anything came of it.
	LeftSilently Kind = "left-silently"
	LeftEarly    Kind = "left-early"
	// TooManyConnections: more connections at a time than an address, or its
	// network, may have.
	TooManyConnections Kind = "too-many-connections"
	// ConnectionRate: more connections in a time than an address, or its
	// network, may make.
	ConnectionRate Kind = "connection-rate"
	// ContentRejected: the server refused a message for what is in it.
	ContentRejected Kind = "content-rejected"
)

// An Event is something that a client did, as the dialogue showed it.
type Event struct {
	Kind Kind
	// Login is the login in question, "" if none.
	Login string
	// Recipient is the recipient in question, lower case, "" if none.
	Recipient string
	// Code is what the server answered, without its text; "" where we noticed
	// it ourselves.
	Code string
}
