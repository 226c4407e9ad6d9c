package protocol

// smtpRows are the replies of the SMTP servers we know, most particular first,
// then the rule that holds over all of them. A row about a text that several
// servers share stands under the first.
var smtpRows = []ReplyRow{
	// AUTH. Every 4xx is the server's trouble and nobody's guess; so is a
	// mechanism that it lacks, and a code for an account that is switched off,
	// which only a right password sees.

	// Postfix, with Cyrus or Dovecot SASL behind it. "Connection lost" is what
	// a wrong password gets while Dovecot delays it longer than Postfix waits.
	{"smtp", "AUTH", "535", "", `invalid authentication mechanism|unsupported (authentication )?mechanism|mechanism not (supported|available)|no mechanism available`, "unknown-mechanism"},
	{"smtp", "AUTH", "535", "", `invalid base64|malformed|authentication (aborted|cancell?ed)`, "auth-aborted"},
	{"smtp", "AUTH", "454", "4.7.0", `connection lost to authentication server`, "penalty"},
	{"smtp", "AUTH", "503", "", `not enabled|not available|not advertised|not supported|not allowed`, "auth-not-offered"},
	{"smtp", "AUTH", "503", "", "", "neutral"},
	{"smtp", "AUTH", "504", "", `encryption required`, "plaintext-auth"},
	// Dovecot submission, Exchange, OpenSMTPD, Haraka, maddy: a mechanism they
	// lack.
	{"smtp", "AUTH", "504", "", "", "unknown-mechanism"},
	// An expired password or a disabled account: the password was right.
	{"smtp", "AUTH", "535", "", `password (has |is )?expired|account (is |has been )?(disabled|expired|locked)|login disabled`, "neutral"},
	{"smtp", "AUTH", "525", "", "", "neutral"},
	{"smtp", "AUTH", "523", "", "", "plaintext-auth"},
	{"smtp", "AUTH", "538", "", "", "plaintext-auth"},
	{"smtp", "AUTH", "530", "", `starttls|encrypt|tls`, "plaintext-auth"},
	// Stalwart: an OAuth token that is only too old, and a second factor that
	// is asked for in a final 334.
	{"smtp", "AUTH", "535", "", `token (has |is )?expired|expired token`, "neutral"},
	{"smtp", "AUTH", "334", "", "", "neutral"},
	// Courier says 535 also for a mechanism that is switched off.
	{"smtp", "AUTH", "535", "-", `^authentication (rejected|required)`, "neutral"},
	// Any server: the exchange came to nothing.
	{"smtp", "AUTH", "501", "", `mechanism`, "neutral"},
	{"smtp", "AUTH", "501", "", "", "auth-aborted"},
	{"smtp", "AUTH", "500", "5.5.6", "", "auth-aborted"},
	{"smtp", "AUTH", "553", "", `initial data`, "auth-aborted"},
	{"smtp", "AUTH", "500", "", "", "auth-not-offered"},
	{"smtp", "AUTH", "502", "", "", "auth-not-offered"},
	// The general rule.
	{"smtp", "AUTH", "535", "", `not (enabled|supported)|cleartext|plaintext|requires? (tls|ssl|encryption)|encryption required|temporar|try again|too many`, "neutral"},
	{"smtp", "AUTH", "535", "", "", "failure"},
	{"smtp", "AUTH", "235", "", "", "success"},
	{"smtp", "AUTH", "", "", "", "neutral"},

	// RCPT. Postfix defers all its refusals to here.
	{"smtp", "RCPT", "2", "", "", "nothing"},
	{"smtp", "RCPT", "5", "", `helo command rejected`, "helo-rejected"},
	{"smtp", "RCPT", "504", "5.5.2", `fully-qualified hostname`, "helo-rejected"},
	{"smtp", "RCPT", "5", "", `blocked using|dnsbl|blacklist|blocklist|spamhaus|spamcop`, "listed-client"},
	{"smtp", "RCPT", "5", "", `sender address rejected|sender verify failed|sender rejected`, "sender-rejected"},
	{"smtp", "RCPT", "5", "", `client host rejected`, "client-rejected"},
	{"smtp", "RCPT", "554", "5.7.1", `relay access denied`, "relay-denied"},
	{"smtp", "RCPT", "454", "4.7.1", `relay access denied`, "relay-denied"},
	{"smtp", "RCPT", "5", "", `user unknown|unknown user`, "invalid-rcpt"},
	// An address that a verifying Postfix could not deliver to. (Its default
	// code is 450; that stays without points.)
	{"smtp", "RCPT", "550", "", `undeliverable address`, "invalid-rcpt"},
	// Stalwart, Exim, Courier, qmail, Exchange, OpenSMTPD, mox.
	{"smtp", "RCPT", "5", "", `relay(ing)? (is )?(not|denied|prohibited)|unable to relay|we do not relay|cannot relay`, "relay-denied"},
	{"smtp", "RCPT", "513", "", "", "relay-denied"},
	{"smtp", "RCPT", "553", "", `list of allowed rcpthosts`, "relay-denied"},
	{"smtp", "RCPT", "550", "5.7.54", "", "relay-denied"},
	{"smtp", "RCPT", "550", "5.1.1", `not accepting email for domain`, "relay-denied"},
	{"smtp", "RCPT", "5", "", `too many (bad recipients|failures|errors|invalid recipients)`, "too-many-errors"},
	// Courier names the user: "550 User <x@example.test> unknown".
	{"smtp", "RCPT", "550", "", `user <[^>]*> unknown`, "invalid-rcpt"},
	// OpenSMTPD, of a name that its table of virtual users lacks.
	{"smtp", "RCPT", "524", "5.2.4", `mailing list expansion problem`, "invalid-rcpt"},
	// OpenSMTPD says the same for an unknown user and for a domain that it does
	// not serve; Haraka's is "nobody wants this mail". The milder reading holds.
	{"smtp", "RCPT", "550", "", `invalid recipient`, "invalid-rcpt"},
	{"smtp", "RCPT", "550", "", `i cannot deliver mail for`, "invalid-rcpt"},
	// Policy and greylisting say nothing about the recipient.
	{"smtp", "RCPT", "5", "", `relay|blocked|access denied|domain not found|gr[ea]ylist|authenticat|not owned by user`, "nothing"},
	{"smtp", "RCPT", "5", "5.1.1", "", "invalid-rcpt"},
	{"smtp", "RCPT", "5", "5.1.10", "", "invalid-rcpt"},
	{"smtp", "RCPT", "5", "5.1.6", "", "invalid-rcpt"},
	{"smtp", "RCPT", "5", "5.1.2", `mailbox|user|recipient`, "invalid-rcpt"},
	{"smtp", "RCPT", "5", "", `unrouteable address|no such (user|mailbox|recipient|person|address)|does not exist|recipient ?not ?found|user not found|mailbox (unavailable|not found)|no mailbox( here)?|address unknown|unknown (address|recipient)|recipient unknown`, "invalid-rcpt"},

	// MAIL, EHLO and CONNECT, on servers that do not defer.
	{"smtp", "MAIL", "2", "", "", "nothing"},
	{"smtp", "MAIL", "5", "", `helo command rejected`, "helo-rejected"},
	{"smtp", "MAIL", "5", "", `blocked using|dnsbl|blacklist|blocklist|spamhaus|spamcop`, "listed-client"},
	{"smtp", "MAIL", "5", "", `client host rejected`, "client-rejected"},
	{"smtp", "MAIL", "5", "", `sender (address )?rejected|sender verify failed|badmailfrom|domain (of sender|not found|does not exist)|invalid sender`, "sender-rejected"},
	{"smtp", "MAIL", "5", "5.1.8", "", "sender-rejected"},
	{"smtp", "MAIL", "517", "", "", "sender-rejected"},
	{"smtp", "EHLO", "2", "", "", "nothing"},
	{"smtp", "EHLO", "5", "", `blocked using|dnsbl|blacklist|blocklist|spamhaus|spamcop`, "listed-client"},
	{"smtp", "EHLO", "5", "", `client host rejected`, "client-rejected"},
	{"smtp", "EHLO", "500", "", "", "nothing"},
	{"smtp", "EHLO", "502", "", "", "nothing"},
	{"smtp", "EHLO", "503", "", "", "nothing"},
	{"smtp", "EHLO", "5", "", `helo|ehlo|host ?name|invalid name|domain`, "helo-rejected"},
	{"smtp", "CONNECT", "5", "", `blocked using|dnsbl|blacklist|blocklist|spamhaus|spamcop`, "listed-client"},
	{"smtp", "CONNECT", "5", "", `client host rejected`, "client-rejected"},

	// A message. Where Haraka and qmail meet a bare newline they close.
	{"smtp", "MESSAGE", "2", "", "", "nothing"},
	{"smtp", "MESSAGE", "", "", `bare (<?lf>?|<?cr>?|line-feed|newline)|smtplf`, "bare-newline"},
	{"smtp", "MESSAGE", "5", "", `(user|recipient|mailbox) (unknown|not found)|unknown user|no such (user|recipient)`, "nothing"},
	{"smtp", "MESSAGE", "552", "", "", "nothing"},
	{"smtp", "MESSAGE", "5", "5.3.", "", "nothing"},
	{"smtp", "MESSAGE", "5", "", `spam|virus|malware|phish|infected|content|message rejected|blocked|command rejected`, "content-rejected"},
	{"smtp", "MESSAGE", "5", "5.7.1", "", "content-rejected"},

	// Any command, and replies that nobody asked for.
	{"smtp", "*", "", "", `too many (errors|authentication errors|invalid commands|unrecognized commands|nonmail commands|syntax or protocol errors)`, "too-many-errors"},
	{"smtp", "*", "221", "2.7.0", `break rules`, "foreign-protocol"},
	{"smtp", "*", "554", "", `smtp (protocol )?synchroni[sz]ation`, "pipelining"},
	{"smtp", "*", "500", "", `pipelining not supported`, "pipelining"},
	{"smtp", "*", "", "", `bare <(cr|lf)> received|smtplf\.html`, "bare-newline"},
	{"smtp", "*", "500", "", `(line|command) too long`, "line-too-long"},
}
