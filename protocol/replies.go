package protocol

// A ReplyRow says what a server's reply means. The first row that matches
// decides. The rows of the known servers are in this file; an operator's own
// go before them.
type ReplyRow struct {
	// Protocol is "smtp" (also for submission), "imap", "pop3", "managesieve".
	Protocol string `toml:"protocol"`
	// Command is what the reply answers: "AUTH" (any login), "RCPT", "MAIL", …
	Command string `toml:"command"`
	// Code is the start of the reply's code: "535", "5", "NO", "-ERR".
	Code string `toml:"code"`
	// Enhanced is the enhanced status or response code: "5.7.8",
	// "AUTHENTICATIONFAILED"; "" matches any, "-" matches none given.
	Enhanced string `toml:"enhanced"`
	// Text is a regular expression on the reply's texts, "" for any. Case is
	// ignored.
	Text string `toml:"text"`
	// Means is an outcome ("failure", "neutral", "success", "penalty"), an
	// event's kind, or "nothing".
	Means string `toml:"means"`
}
