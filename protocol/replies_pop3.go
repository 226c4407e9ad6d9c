package protocol

// pop3Rows are the replies of the POP3 servers we know, most particular first,
// then the rule that holds over all of them.
var pop3Rows = []ReplyRow{
	// Dovecot, Cyrus.
	{"pop3", "AUTH", "-ERR", "", `unsupported (authentication )?mechanism|mechanism (is )?not (supported|available)|no mechanism available`, "unknown-mechanism"},
	{"pop3", "AUTH", "-ERR", "", `(plaintext|cleartext) authentication (is )?(disallowed|disabled)|only available under a layer`, "plaintext-auth"},
	{"pop3", "AUTH", "-ERR", "", `aborted|client canceled|invalid base64`, "auth-aborted"},
	{"pop3", "AUTH", "-ERR", "", `no username given|must give|unknown command|authorization first`, "neutral"},
	// Any server with response codes (RFC 2449, RFC 3206): only AUTH is about
	// the password.
	{"pop3", "AUTH", "-ERR", "SYS/", "", "neutral"},
	{"pop3", "AUTH", "-ERR", "IN-USE", "", "neutral"},
	{"pop3", "AUTH", "-ERR", "LOGIN-DELAY", "", "neutral"},
	{"pop3", "AUTH", "-ERR", "", `disabled|expired|locked|limit|too many|temporar|unavailable|try again|generic|layer|tls|ssl`, "neutral"},
	// Dovecot, Cyrus.
	{"pop3", "AUTH", "-ERR", "AUTH", `fail|incorrect|invalid|denied|wrong|bad|password`, "failure"},
	// Stalwart, qmail: no code, so that the text must do.
	{"pop3", "AUTH", "-ERR", "-", `fail|incorrect|invalid (user|login|cred|pass)|denied|wrong|bad (user|login|pass)`, "failure"},
	{"pop3", "AUTH", "+OK", "", "", "success"},
	{"pop3", "AUTH", "", "", "", "neutral"},

	// Any other command before login.
	{"pop3", "*", "-ERR", "", `too many`, "too-many-errors"},
	{"pop3", "*", "-ERR", "", `(unknown|invalid|unrecogni[sz]ed|unimplemented) command`, "bad-command"},
}
