package protocol

// sieveRows are the replies of the ManageSieve servers we know, then the rule
// that holds over all of them.
var sieveRows = []ReplyRow{
	// Codes (RFC 5804 section 1.3) say that the password was not looked at, or
	// was right.
	{"managesieve", "AUTH", "NO", "ENCRYPT-NEEDED", "", "plaintext-auth"},
	{"managesieve", "AUTH", "NO", "", `unsupported (authentication )?mechanism|mechanism (is )?not (supported|available)|no mechanism available`, "unknown-mechanism"},
	{"managesieve", "AUTH", "NO", "-", `(plaintext|cleartext) authentication (is )?(disallowed|disabled)`, "plaintext-auth"},
	{"managesieve", "AUTH", "NO", "-", `aborted|client canceled|invalid base64|error in managesieve command`, "auth-aborted"},
	{"managesieve", "AUTH", "NO", "-", `disabled|expired|locked|limit|too many|temporar|unavailable|try again|generic|layer|tls|ssl`, "neutral"},
	// Cyrus has one sentence for a wrong password and for trouble of its own.
	// To count neither would leave it open to any number of guesses.
	{"managesieve", "AUTH", "NO", "-", `^authentication error$`, "failure"},
	// Pigeonhole: no code.
	{"managesieve", "AUTH", "NO", "-", `fail|incorrect|invalid (user|login|cred)|denied`, "failure"},
	{"managesieve", "AUTH", "OK", "", "", "success"},
	{"managesieve", "AUTH", "", "", "", "neutral"},

	// Any other command before login.
	{"managesieve", "*", "BYE", "", `too many`, "too-many-errors"},
	{"managesieve", "*", "NO", "", `unknown command|error in managesieve command`, "bad-command"},
}
