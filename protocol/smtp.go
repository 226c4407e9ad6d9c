package protocol

// The protocols of mail transfer and of submission (RFC 5321, RFC 6409). They
// differ in what is refused before a login, and in their scope.
var (
	smtp = &Protocol{
		Name:      "smtp",
		ALPN:      "smtp",
		Scope:     "mx",
		EarlyTalk: true,
		New:       func(s Setup) Conversation { return newSMTP(s, false) },
		Probe:     newSMTPProber,
		Say:       saySMTP,
	}
	submission = &Protocol{
		Name:  "submission",
		ALPN:  "submission",
		Scope: "auth",
		New:   func(s Setup) Conversation { return newSMTP(s, true) },
		Probe: newSMTPProber,
		Say:   saySMTP,
	}
)

// Bounds of an SMTP conversation.
const (
	// maxHello bounds an EHLO line that we keep to replay it (RFC 5321 section
	// 4.5.3.1.4).
	maxHello = 512

	// maxRcpts bounds the recipients of a message that are remembered for
	// good-rcpt, and maxRcpt one of them, in bytes (RFC 5321 section 4.5.3.1).
	maxRcpts = 1000
	maxRcpt  = 320

	// ownNoops is how many NOOPs we answer before the dial.
	ownNoops = 3

	// maxOwnErrors is how many errors of the client, or logins that the guard
	// refuses, we answer ourselves before we give up, as Postfix does
	// (smtpd_hard_error_limit).
	maxOwnErrors = 20
)

// An smtpLink says how far the server is reached.
type smtpLink uint8

const (
	linkNone      smtpLink = iota // not dialled
	linkGreet                     // its greeting is awaited
	linkIntroduce                 // the reply to our own EHLO, ahead of XCLIENT, is awaited
	linkXClient                   // the reply to XCLIENT is awaited
	linkReplay                    // the reply to the client's EHLO, said again, is awaited
	linkReady                     // it is the client's
	linkRefused                   // it closed, or refused; the connection is ending
)

// smtpConversation is one SMTP dialogue.
type smtpConversation struct {
	setup      Setup
	table      *ReplyTable
	submission bool

	link   smtpLink
	secure bool

	// hello is the client's EHLO or HELO line that we answered, to be replayed
	// once the server is dialled.
	hello []byte

	// helloName is the name in it, or in the EHLO that asked for the dial;
	// plainHello is set if it was a HELO. XCLIENT tells both.
	helloName  string
	plainHello bool

	// noops, errors and refusals count what we answered ourselves: NOOPs,
	// errors of the client, logins that the guard refused.
	noops, errors, refusals int

	// pending are the commands that the server owes a reply, oldest first.
	pending []smtpCommand

	// auth is the exchange under way, nil if none. authed and login tell of the
	// one that succeeded.
	auth   *smtpAuth
	authed bool
	login  string

	// inData is set while the client sends a message behind DATA.
	inData  bool
	scanner dataScanner

	// octets are what is left of a BDAT chunk. swallow is our answer to a
	// chunk that goes no further, nil if it goes on.
	octets  uint64
	swallow []byte
	// chunks is set between the chunks of a message.
	chunks bool

	// rcpts are the recipients that the server accepted in this transaction.
	rcpts []string

	// offersAuth tells what the server's last EHLO reply (before it: the
	// probe's) listed, offersChunking what that of this connection did.
	offersAuth, offersChunking bool

	// stray is set after a reply that nobody asked for: the server is about to
	// close.
	stray bool

	// halfDone is set after a final 334 (Stalwart): a client that takes it for
	// a challenge answers what is no command.
	halfDone bool

	// seen are the offences that were told and are told once only.
	seen map[Kind]bool
}

// newSMTP starts a conversation.
func newSMTP(s Setup, isSubmission bool) *smtpConversation {
	c := &smtpConversation{setup: s, table: s.replies(), submission: isSubmission, secure: s.Secure}
	c.learn(s.Offer.Capabilities)
	c.offersChunking = false
	return c
}

// Start gives the greeting. The keyword ESMTP invites EHLO (RFC 5321 section
// 4.2).
func (c *smtpConversation) Start() Step {
	return Step{ToClient: []byte("220 " + c.host() + " ESMTP\r\n")}
}

// host is the name we go by: the server's, where it is known.
func (c *smtpConversation) host() string {
	if c.setup.Offer.Host != "" {
		return c.setup.Offer.Host
	}
	return c.setup.Hostname
}

// Verdict takes the guard's answer about the credential that is held.
func (c *smtpConversation) Verdict(v Verdict) {
	if c.auth != nil && c.auth.state == authHeld {
		c.auth.state, c.auth.verdict = authDecided, v
	}
}

// opening tells whether the server is dialled and not yet the client's.
func (c *smtpConversation) opening() bool { return c.link > linkNone && c.link < linkReady }

// Dialled begins the dialogue with the server: its greeting comes first.
func (c *smtpConversation) Dialled() { c.link = linkGreet }

// Secured forgets everything that was said before TLS (RFC 3207 section 4.2),
// and the server that may have heard it.
func (c *smtpConversation) Secured() {
	fresh := newSMTP(c.setup, c.submission)
	fresh.secure = true
	fresh.noops, fresh.errors, fresh.refusals, fresh.seen = c.noops, c.errors, c.refusals, c.seen
	*c = *fresh
}

// ServerGone settles what is outstanding and tells the client, unless nothing
// was owed: then the server has said its own farewell, or gone without one.
func (c *smtpConversation) ServerGone() Step {
	step := Step{Do: End, Why: "server closed the connection"}
	if c.auth != nil && c.auth.outstanding {
		step.Outcome, step.Code = c.auth.undecided(), "close"
		if m := c.table.lookup("smtp", "AUTH", reply{code: "close"}); m.outcome != Unsettled {
			step.Outcome = m.outcome
		}
	}
	switch {
	case c.link == linkNone:
		step.Why = "server could not be dialled"
		step.ToClient = saySMTP(SayNoServer, c.host())
	case c.link == linkRefused, c.stray:
	case c.link != linkReady, len(c.pending) > 0, c.auth != nil, c.inData, c.octets > 0:
		step.ToClient = saySMTP(SayNoServer, c.host())
	}
	c.link, c.auth, c.pending = linkRefused, nil, nil
	return step
}

// Phase says whose turn it is.
func (c *smtpConversation) Phase() Phase {
	switch {
	case c.auth != nil && c.auth.state == authServer && c.auth.outstanding:
		return Judged
	case c.auth != nil && c.auth.state == authClient:
		return Idle
	case c.hasPending(cmdMessage) || c.octets == 0 && c.hasPending(cmdBdatLast):
		return Final
	case c.inData || c.octets > 0:
		return Data
	case len(c.pending) > 0 || c.opening():
		return Owed
	case c.auth != nil:
		return Owed
	}
	return Idle
}

func (c *smtpConversation) hasPending(v smtpVerb) bool {
	for i := range c.pending {
		if c.pending[i].verb == v {
			return true
		}
	}
	return false
}

// event makes an event of the client's, with the login it has by now.
func (c *smtpConversation) event(k Kind, code string) []Event {
	return []Event{{Kind: k, Login: c.login, Code: code}}
}

// noise is event for conduct that scores before a login only: what ordinary
// clients do once they are in is not our concern. What one mistake repeats with
// every line is told once.
func (c *smtpConversation) noise(k Kind, code string) []Event {
	if k == "" || c.authed {
		return nil
	}
	if k == BareNewline || k == Pipelining {
		if c.seen[k] {
			return nil
		}
		if c.seen == nil {
			c.seen = make(map[Kind]bool)
		}
		c.seen[k] = true
	}
	return c.event(k, code)
}

// saySMTP composes the last sentences.
func saySMTP(w Word, host string) []byte {
	text := map[Word]string{
		SayBanned:    "421 4.7.0 %s Too many failures from your address; try again later",
		SayBusy:      "421 4.7.0 %s Too many connections; try again later",
		SayNoServer:  "421 4.3.2 %s Service not available; try again later",
		SayTimeout:   "421 4.4.2 %s Timeout exceeded",
		SayShutdown:  "421 4.3.2 %s Service shutting down; try again later",
		SayViolation: "554 5.5.0 %s SMTP protocol violation",
	}[w]
	return formatLine(text, host)
}
