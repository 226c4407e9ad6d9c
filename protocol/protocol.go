// Package protocol knows what a line means in SMTP, submission, IMAP and the
// other protocols of mail. It has no sockets, no clock and no goroutines.
//
// A [Protocol] is one struct literal. Its New makes a [Conversation], which
// follows one dialogue from our greeting to the end: it is shown each side's
// bytes before they move on and answers with a [Step]: what of them may pass,
// what we say ourselves, what the guard must be asked or told, and what the
// relay shall do next. The relay (package proxy) owns the sockets and obeys.
//
// Rules that every conversation keeps:
//
//   - State changes on the server's replies, never on what a client claims.
//   - A credential is forwarded only when the guard has let it pass and no
//     earlier command is unanswered; until its final reply nothing more of the
//     client is looked at.
//   - What passes, passes byte for byte; the few edits (STARTTLS, AUTH and
//     LOGINDISABLED in capability lists) are in the conversation's own file.
//   - Every buffer is bounded. Secrets are in a [Credential] and nowhere else.
package protocol

// A Protocol is what the proxy must know to stand in front of one kind of
// server.
type Protocol struct {
	// Name is the protocol's name in the configuration and in logs.
	Name string

	// ALPN is the identifier of RFC 7301 that a client may offer. A client
	// that offers others only is refused.
	ALPN string

	// Scope is the scope of a listener that names none: "mx" or "auth".
	Scope string

	// EarlyTalk tells that bytes before our greeting are an offence: of
	// senders to port 25, not of people's mail programs.
	EarlyTalk bool

	// New starts a conversation.
	New func(Setup) Conversation

	// Probe starts a dialogue of our own with the server: to learn what it
	// offers, or to reach TLS before a client's dialogue goes on.
	Probe func(ProbeSetup) Prober

	// Say composes the last sentence before we close a connection, with its
	// line end. host is the name we go by.
	Say func(w Word, host string) []byte
}

// All lists the protocols that a listener may name.
var All = []*Protocol{smtp, submission, imap, pop3, managesieve}

// Lookup returns the protocol of that name, or nil.
func Lookup(name string) *Protocol {
	for _, p := range All {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Bounds that hold for every conversation, in bytes.
const (
	// MaxLine bounds a command line before login, and the sum of the literals
	// of one command (Dovecot takes 8192).
	MaxLine = 8 << 10

	// MaxAuthLine bounds a line of a SASL exchange (RFC 4954 section 4.5).
	MaxAuthLine = 12288

	// MaxShown is what a conversation may be shown at once. Shown this much it
	// must take some of it or end; it may not ask for more.
	MaxShown = 16 << 10

	// MaxIdentity is where a login name is cut.
	MaxIdentity = 255

	// MaxPending bounds the commands that wait for a reply. At the bound the
	// client is not read any more.
	MaxPending = 512
)

// TLSMode says how a listener, or a connection to a server, comes by TLS.
type TLSMode string

const (
	TLSNone     TLSMode = "none"
	TLSStartTLS TLSMode = "starttls"
	TLSImplicit TLSMode = "implicit"
)

// A Setup is what a conversation must know before its first byte.
type Setup struct {
	// Hostname is the name we greet with while the server's own is unknown.
	Hostname string

	// Offer is what the server was last seen to offer over TLS; never nil,
	// but its fields are empty before the first successful probe.
	Offer *Offer

	// TLS is the listener's mode. Secure is true if TLS is up already.
	TLS    TLSMode
	Secure bool

	// PlaintextAuth allows credentials without TLS for this client.
	PlaintextAuth bool

	// NoAuth refuses AUTH on this listener whatever the server offers
	// (port 25).
	NoAuth bool

	// Soft is set for an address under a soft ban: the server may be dialled
	// only for a credential that the guard has let pass. EHLO and its like are
	// answered from Offer, with the mechanisms PLAIN and LOGIN only; the
	// credential is collected by us and replayed after the dial.
	Soft bool

	// MasterSeparator splits a login such as "alice*master"; "" splits none.
	MasterSeparator string

	// XClient is what the server is told of the client by XCLIENT; nil if it
	// is not told that way. SMTP and submission only.
	XClient *ClientAddress

	// Replies says what the server's replies mean: what CompileRows made of
	// the operator's own rows. Nil means the built-in rows alone.
	Replies *ReplyTable
}

// An Offer is what a probe has learnt about a server. It is shared and must
// not be changed.
type Offer struct {
	// Host is the name in the server's greeting.
	Host string

	// Capabilities are the EHLO keywords with their parameters, or the words
	// of CAPABILITY, in the server's order, as offered to a client that has
	// TLS; without STARTTLS, XCLIENT, XFORWARD.
	Capabilities []string

	// Family is the server's make where it can be told ("postfix", "dovecot",
	// …), else "".
	Family string
}

// A Conversation follows the dialogue of one connection. It is not safe for
// concurrent use. No byte slice that it is shown is kept; the slices in a Step
// are valid until the next call.
type Conversation interface {
	// Start gives what we say first: the greeting.
	Start() Step

	// Client decides about data, what the client has sent and is not yet
	// used up. It is called again with the rest until it answers [More],
	// [Wait] or an action after which the relay has to do something first.
	Client(data []byte) Step

	// Server does the same for the server's bytes.
	Server(data []byte) Step

	// Verdict tells the guard's answer to a [Hold]. The bytes that were held
	// are then shown to Client again.
	Verdict(Verdict)

	// Dialled tells that the server is connected, after [Dial]. The bytes
	// that needed it are then shown to Client again, which answers Wait until
	// the server's greeting and our own opening commands are done with.
	Dialled()

	// Secured tells that TLS is up, after [StartTLS]. Client is called next,
	// also without bytes: ManageSieve repeats its capabilities then.
	Secured()

	// ServerGone tells that the server could not be dialled, or has closed
	// the connection, all of its bytes having been shown. The step says what
	// the client is told and settles what is outstanding.
	ServerGone() Step

	// Phase tells whose turn it is, for timers and cuts.
	Phase() Phase
}

// A Step is a conversation's answer. Its parts are carried out in this order:
// Outcome and Events are told to the guard; the bytes pass or are dropped;
// ToServer and ToClient are written; then Do.
type Step struct {
	// Take is how many of the shown bytes are used up. They go on to the
	// other side if Forward is set, else they are dropped.
	Take    int
	Forward bool

	// ToServer and ToClient are what we say ourselves.
	ToServer []byte
	ToClient []byte

	// Do is what the relay shall do next.
	Do Do

	// Credential is set with Hold.
	Credential *Credential

	// Outcome, unless zero, settles the credential that is outstanding. It is
	// told to the guard before anything is released to the client.
	Outcome Outcome

	// Code is what the server answered, without its text ("535 5.7.8",
	// "NO [AUTHENTICATIONFAILED]"), for Outcome.
	Code string

	// Events are what was noticed, told to the guard before anything of this
	// step is released.
	Events []Event

	// Progress restarts the timers of a mail exchange: a MAIL or a message
	// was accepted.
	Progress bool

	// Why says, with End, why the connection ends, for the log.
	Why string
}

// Do is what the relay shall do after a step.
type Do uint8

const (
	// Continue: show the rest at once.
	Continue Do = iota
	// More: nothing can be decided before this side has sent more.
	More
	// Wait (Client only): show these bytes again when the server has said
	// something or a pending question is answered; read no more until then.
	Wait
	// Hold (Client only): ask the guard about Credential, call Verdict.
	Hold
	// Dial (Client only): connect to the server, call Dialled or ServerGone.
	Dial
	// StartTLS (Client only): check that the client has sent nothing beyond
	// what was taken, write ToClient, shake hands, call Secured. A server
	// that is connected is closed first: its session is forgotten.
	StartTLS
	// Blind: from now on bytes pass in both directions unseen.
	Blind
	// End: close both sides after writing. The server is not half-closed
	// gracefully first: a message that is not complete must not look so.
	End
)

// Phase is where a dialogue stands.
type Phase uint8

const (
	// Idle: it is the client's turn, not in the middle of a message.
	Idle Phase = iota
	// Owed: the server owes a reply, or we are about to give one.
	Owed
	// Judged: a credential is with the server and unanswered. The client is
	// not read meanwhile, so its leaving is not passed on: Client answers
	// [Wait], whatever it is shown.
	Judged
	// Data: the client is sending a message.
	Data
	// Final: a whole message has been sent and its reply is outstanding.
	// Nothing may cut here, or mail is delivered twice.
	Final
	// LoggedIn: the server has accepted a login; nothing is owed.
	LoggedIn
)

// String gives the phase's name for logs.
func (p Phase) String() string {
	return [...]string{"idle", "owed", "judged", "data", "final", "logged-in"}[p]
}

// Verdict is the guard's answer about a client or a credential.
type Verdict uint8

const (
	// Pass: let it through.
	Pass Verdict = iota
	// Soft: admit the connection, but see [Setup.Soft].
	Soft
	// Repeated: the same wrong password as a moment ago. It is answered
	// locally as the server did: authentication failed.
	Repeated
	// Guarded: the login is closed to strangers for now. Answered as
	// temporarily as the protocol allows.
	Guarded
	// Busy: too many attempts are under way, or the guard cannot decide.
	// A temporary refusal.
	Busy
	// Refused: credentials of this client are refused for now, the connection
	// may go on (an auth ban on an mx listener). A temporary refusal.
	Refused
	// Banned: last word, and close.
	Banned
)

// String gives the verdict's name for logs and metrics.
func (v Verdict) String() string {
	return [...]string{"pass", "soft", "repeated", "guarded", "busy", "refused", "banned"}[v]
}

// A Word names a last sentence that we may have to say.
type Word uint8

const (
	// SayBanned: too many failures from this address.
	SayBanned Word = iota
	// SayBusy: too many connections, from this address or in all.
	SayBusy
	// SayNoServer: no server answers.
	SayNoServer
	// SayTimeout: the client took too long.
	SayTimeout
	// SayShutdown: we are being restarted.
	SayShutdown
	// SayViolation: what was sent cannot be told apart from an attack
	// (bytes behind STARTTLS, a line without end).
	SayViolation
)

// Outcome is what the server made of a credential.
type Outcome uint8

const (
	// Unsettled is the zero value: no outcome.
	Unsettled Outcome = iota
	// Success: the login is in.
	Success
	// Failure: wrong login or password.
	Failure
	// Neutral: the server would not judge (a temporary failure, a mechanism
	// it lacks, an aborted exchange, an account switched off).
	Neutral
	// Penalty: Postfix's "Connection lost to authentication server", which a
	// wrong password gets under Dovecot's penalty and a right one during an
	// outage. The guard tells them apart.
	Penalty
	// Left: the client went away before the server answered. Never given by a
	// conversation; the relay knows it.
	Left
)

// String gives the outcome's name for logs and metrics.
func (o Outcome) String() string {
	return [...]string{"unsettled", "success", "failure", "neutral", "penalty", "left"}[o]
}

// A Credential is a guess, on its way to the server.
type Credential struct {
	// Mechanism is the SASL mechanism, or "LOGIN", "USER" for the protocols'
	// own commands; upper case.
	Mechanism string

	// Identities are all login names in it: authentication identity first,
	// then authorisation identity and the parts of a master login. Without
	// control characters and blanks, each at most MaxIdentity bytes; empty
	// for opaque mechanisms.
	Identities []string

	// Secret is the password or token, nil where there is none to compare
	// (challenge-response, opaque). It must not be kept, printed or stored.
	Secret []byte
}
