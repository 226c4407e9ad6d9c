package protocol

// imapRows are the replies of the IMAP servers we know, most particular first,
// then the rule that holds over all of them. BAD is never a wrong password.
var imapRows = []ReplyRow{
	// Mechanisms that the server lacks: Dovecot, Stalwart (which says
	// AUTHENTICATIONFAILED for it), Cyrus.
	{"imap", "AUTH", "NO", "", `unsupported (authentication )?mechanism|mechanism (is )?not (supported|available)|no mechanism available|not supported`, "unknown-mechanism"},
	// A login without TLS as the server sees it: Dovecot, Cyrus.
	{"imap", "AUTH", "NO", "PRIVACYREQUIRED", "", "plaintext-auth"},
	{"imap", "AUTH", "NO", "", `only available under a layer`, "plaintext-auth"},
	// Stalwart: an OAuth token that is only too old.
	{"imap", "AUTH", "NO", "", `token (has |is )?expired|expired token`, "neutral"},
	// Any server that speaks RFC 5530: all other codes say that the password
	// was right, or not looked at.
	{"imap", "AUTH", "NO", "AUTHENTICATIONFAILED", "", "failure"},
	// Dovecot gives the password database's reason under ALERT.
	{"imap", "AUTH", "NO", "ALERT", `password|authentication failed|incorrect`, "failure"},
	// Cyrus, Courier, Exchange: no code, so that the text must do. "generic
	// failure" is Cyrus SASL's word for trouble of its own.
	{"imap", "AUTH", "NO", "-", `temporar|unavailable|try again|generic|mechanism|layer|tls|ssl|plaintext|cleartext|disabled|limit|too many`, "neutral"},
	{"imap", "AUTH", "NO", "-", `fail|incorrect|invalid (user|login|cred)|denied`, "failure"},
	// The exchange came to nothing: aborted, or not base64.
	{"imap", "AUTH", "BAD", "", "", "auth-aborted"},
	{"imap", "AUTH", "OK", "", "", "success"},
	{"imap", "AUTH", "", "", "", "neutral"},

	// Any other command before login.
	{"imap", "*", "BAD", "", "", "bad-command"},
	{"imap", "*", "BYE", "", `too many (invalid|bad|errors)`, "too-many-errors"},
}
