package guard

import "mailreeve/protocol"

// Kinds that the guard finds itself, from the lists in [Config].
const (
	// HoneypotLogin: a login that nobody has was tried.
	HoneypotLogin protocol.Kind = "honeypot-login"
	// TrapRcpt: a recipient that nobody has was named.
	TrapRcpt protocol.Kind = "trap-rcpt"
)

// kinds are all kinds of events that a rule may give points to.
var kinds = []protocol.Kind{
	protocol.AuthFailure, HoneypotLogin,
	protocol.InvalidRcpt, protocol.RelayDenied, TrapRcpt,
	protocol.Loitering,
	protocol.EarlyTalk, protocol.ForeignProtocol, protocol.BareNewline,
	protocol.Injection, protocol.Pipelining, protocol.BadCommand,
	protocol.TooManyErrors, protocol.LineTooLong, protocol.PlaintextAuth,
	protocol.UnknownMechanism, protocol.AuthAborted, protocol.AuthNotOffered,
	protocol.HeloRejected, protocol.SenderRejected, protocol.ClientRejected,
	protocol.ListedClient, protocol.ContentRejected,
}
