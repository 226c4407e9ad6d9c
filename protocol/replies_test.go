package protocol

import (
	"strings"
	"testing"
)

// TestReplies holds what each known server's replies mean.
func TestReplies(t *testing.T) {
	tests := []struct {
		server, command, line string
		outcome               Outcome
		kind                  Kind
	}{
		{"Postfix", "AUTH", "235 2.7.0 Authentication successful", Success, ""},
		{"Postfix", "AUTH", "535 5.7.8 Error: authentication failed: (reason unavailable)", Failure, ""},
		{"Postfix 3.4", "AUTH", "535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6", Failure, ""},
		{"Postfix", "AUTH", "535 5.7.8 Error: authentication failed: Invalid authentication mechanism", Neutral, UnknownMechanism},
		{"Postfix", "AUTH", "535 5.7.8 Error: authentication failed: Invalid base64 data in initial response", Neutral, AuthAborted},
		{"Postfix", "AUTH", "454 4.7.0 Temporary authentication failure: generic failure", Neutral, ""},
		{"Postfix", "AUTH", "454 4.7.0 Temporary authentication failure: Connection lost to authentication server", Penalty, ""},
		{"Postfix", "AUTH", "450 4.7.1 Error: too many AUTH commands from 192.0.2.1", Neutral, ""},
		{"Postfix", "AUTH", "503 5.5.1 Error: authentication not enabled", Neutral, AuthNotOffered},
		{"Postfix", "AUTH", "503 5.5.1 Error: already authenticated", Neutral, ""},
		{"Postfix", "AUTH", "504 5.5.4 Encryption required for requested authentication mechanism", Neutral, PlaintextAuth},
		{"Postfix", "AUTH", "501 5.7.0 Authentication aborted", Neutral, AuthAborted},
		{"Postfix", "RCPT", "550 5.1.1 <>: Recipient address rejected: User unknown in local recipient table", 0, InvalidRcpt},
		{"Postfix", "RCPT", "550 5.1.1 <>: Recipient address rejected: User unknown in relay recipient table", 0, InvalidRcpt},
		{"Postfix", "RCPT", "550 5.1.1 <>: Recipient address rejected: User unknown", 0, InvalidRcpt},
		{"Postfix", "RCPT", "554 5.7.1 <>: Relay access denied", 0, RelayDenied},
		{"Postfix", "RCPT", "454 4.7.1 <>: Relay access denied", 0, RelayDenied},
		{"Postfix", "RCPT", "450 4.1.1 <>: Recipient address rejected: undeliverable address: host said", 0, ""},
		{"Postfix", "RCPT", "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", 0, ListedClient},
		{"Postfix", "RCPT", "554 5.7.1 <>: Client host rejected: Access denied", 0, ClientRejected},
		{"Postfix", "RCPT", "501 5.5.2 <>: Helo command rejected: Invalid name", 0, HeloRejected},
		{"Postfix", "RCPT", "550 5.1.8 <>: Sender address rejected: Domain not found", 0, SenderRejected},
		{"Postfix", "RCPT", "450 4.2.0 <>: Recipient address rejected: Greylisted", 0, ""},
		{"Postfix", "RCPT", "554 5.7.1 <>: Recipient address rejected: Access denied", 0, ""},
		{"Postfix", "RCPT", "451 4.3.0 Temporary lookup failure", 0, ""},
		{"Postfix", "RCPT", "452 4.5.3 Error: too many recipients", 0, ""},
		{"Postfix", "*", "421 4.7.0 mx.example.test Error: too many errors", 0, TooManyErrors},
		{"Postfix", "*", "221 2.7.0 Error: I can break rules, too. Goodbye.", 0, ForeignProtocol},
		{"Postfix", "MAIL", "554 5.5.0 Error: SMTP protocol synchronization", 0, Pipelining},
		{"Postfix", "MESSAGE", "250 2.0.0 Ok: queued as 4F3B", 0, ""},
		{"Postfix", "MESSAGE", "550 5.7.1 Command rejected", 0, ContentRejected},
		{"Dovecot", "AUTH", "535 5.7.8 Authentication failed.", Failure, ""},
		{"Dovecot", "AUTH", "454 4.7.0 Temporary authentication failure. [mx:2026-11-22 10:00:00]", Neutral, ""},
		{"Dovecot", "AUTH", "525 5.7.13 User account disabled", Neutral, ""},
		{"Dovecot", "AUTH", "523 5.7.10 Cleartext authentication disallowed on non-secure (SSL/TLS) connections.", Neutral, PlaintextAuth},
		{"Dovecot", "AUTH", "535 5.7.8 Your password has expired", Neutral, ""},
		{"Dovecot", "*", "421 4.7.0 Too many invalid commands.", 0, TooManyErrors},
		{"Exim", "AUTH", "235 Authentication succeeded", Success, ""},
		{"Exim", "AUTH", "535 Incorrect authentication data", Failure, ""},
		{"Exim", "AUTH", "435 Unable to authenticate at present", Neutral, ""},
		{"Exim", "AUTH", "501 Invalid base64 data", Neutral, AuthAborted},
		{"Exim", "AUTH", "503 AUTH command used when not advertised", Neutral, AuthNotOffered},
		{"Exim", "AUTH", "553 Initial data not expected", Neutral, AuthAborted},
		{"Exim", "RCPT", "550 Unrouteable address", 0, InvalidRcpt},
		{"Exim", "RCPT", "550 Unknown user", 0, InvalidRcpt},
		{"Exim", "RCPT", "550 relay not permitted", 0, RelayDenied},
		{"Exim", "RCPT", "550 Sender verify failed", 0, SenderRejected},
		{"Exim", "RCPT", "451 Temporary local problem - please try later", 0, ""},
		{"Exim", "*", "554 SMTP synchronization error", 0, Pipelining},
		{"Exim", "*", "554 Too many nonmail commands", 0, TooManyErrors},
		{"Exim", "*", "500 Too many unrecognized commands", 0, TooManyErrors},
		{"OpenSMTPD", "AUTH", "535 Authentication failed", Failure, ""},
		{"OpenSMTPD", "AUTH", "421 4.3.0 Temporary failure", Neutral, ""},
		{"OpenSMTPD", "AUTH", "504 5.5.4 AUTH method \"X\" not supported", Neutral, UnknownMechanism},
		{"OpenSMTPD", "RCPT", "550 Invalid recipient: <>", 0, InvalidRcpt},
		{"OpenSMTPD", "RCPT", "524 5.2.4 Mailing list expansion problem: <>", 0, InvalidRcpt},
		{"OpenSMTPD", "MAIL", "530 Sender rejected", 0, SenderRejected},
		{"Stalwart", "AUTH", "535 5.7.8 Authentication credentials invalid.", Failure, ""},
		{"Stalwart", "AUTH", "535 5.7.8 OAuth token expired.", Neutral, ""},
		{"Stalwart", "AUTH", "334 5.7.8 This account requires multi-factor authentication.", Neutral, ""},
		{"Stalwart", "AUTH", "550 5.7.1 Your account is not authorized to use this service.", Neutral, ""},
		{"Stalwart", "*", "455 4.3.0 Too many authentication errors, disconnecting.", 0, TooManyErrors},
		{"Stalwart", "RCPT", "550 5.1.2 Mailbox does not exist.", 0, InvalidRcpt},
		{"Stalwart", "RCPT", "550 5.1.2 Relay not allowed.", 0, RelayDenied},
		{"Stalwart", "RCPT", "452 4.2.2 Greylisted, please try again later.", 0, ""},
		{"Haraka", "AUTH", "535 5.7.8 Authentication failed", Failure, ""},
		{"Haraka", "RCPT", "550 I cannot deliver mail for <>", 0, InvalidRcpt},
		{"Haraka", "MESSAGE", "451 Bare line-feed; see http://haraka.github.io/barelf/", 0, BareNewline},
		{"Courier", "AUTH", "535 Authentication failed.", Failure, ""},
		{"Courier", "AUTH", "535 Authentication rejected", Neutral, ""},
		{"Courier", "AUTH", "432 Service temporarily unavailable.", Neutral, ""},
		{"Courier", "MAIL", "535 Authentication required.", 0, ""},
		{"Courier", "RCPT", "550 User unknown.", 0, InvalidRcpt},
		{"Courier", "RCPT", "550 User <nobody@example.test> unknown", 0, InvalidRcpt},
		{"Courier", "RCPT", "513 Relaying denied.", 0, RelayDenied},
		{"Courier", "MAIL", "517 Sender rejected", 0, SenderRejected},
		{"qmail", "AUTH", "535 authorization failed (#5.7.0)", Failure, ""},
		{"qmail", "AUTH", "454 oops, child crashed and I can't auth (#4.3.0)", Neutral, ""},
		{"qmail", "RCPT", "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", 0, RelayDenied},
		{"qmail", "MESSAGE", "451 See https://cr.yp.to/docs/smtplf.html.", 0, BareNewline},
		{"Exchange", "AUTH", "535 5.7.3 Authentication unsuccessful", Failure, ""},
		{"Exchange", "AUTH", "504 5.7.4 Unrecognized authentication type", Neutral, UnknownMechanism},
		{"Exchange", "RCPT", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", 0, InvalidRcpt},
		{"Exchange", "RCPT", "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", 0, RelayDenied},
		{"maddy", "AUTH", "535 5.7.8 Invalid credentials", Failure, ""},
		{"maddy", "AUTH", "454 4.7.0 Internal server error", Neutral, ""},
		{"mox", "AUTH", "535 5.7.8 bad user/pass", Failure, ""},
		{"mox", "AUTH", "525 5.7.13 account disabled", Neutral, ""},
		{"mox", "AUTH", "538 5.7.11 tls required", Neutral, PlaintextAuth},
		{"mox", "RCPT", "550 5.1.1 no such user", 0, InvalidRcpt},
		{"mox", "RCPT", "550 5.1.1 not accepting email for domain", 0, RelayDenied},
		{"mox", "RCPT", "550 5.1.0 too many failures", 0, TooManyErrors},
	}
	table, err := CompileRows(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.server+"/"+test.line, func(t *testing.T) {
			r, n, state := readSMTPReply([]byte(test.line + "\r\n"))
			if state != replyWhole || n != len(test.line)+2 {
				t.Fatalf("not read as a reply: %v", state)
			}
			got := table.lookup("smtp", test.command, r)
			if got.outcome != test.outcome && (got.kind == "" || test.outcome != Neutral) {
				t.Errorf("outcome: got %v, want %v", got.outcome, test.outcome)
			}
			if got.kind != test.kind {
				t.Errorf("kind: got %q, want %q", got.kind, test.kind)
			}
		})
	}
}

func TestOperatorRowsGoFirst(t *testing.T) {
	table, err := CompileRows([]ReplyRow{
		{Protocol: "smtp", Command: "AUTH", Code: "435", Means: "failure"},
		{Protocol: "smtp", Command: "AUTH", Code: "close", Means: "failure"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := table.lookup("smtp", "AUTH", reply{code: "435"}); got.outcome != Failure {
		t.Errorf("435: got %v, want failure", got.outcome)
	}
	if got := table.lookup("smtp", "AUTH", reply{code: "close"}); got.outcome != Failure {
		t.Errorf("close: got %v, want failure", got.outcome)
	}
	if got := builtinTable().lookup("smtp", "AUTH", reply{code: "close"}); got != (meaning{}) {
		t.Errorf("close without a row: got %v, want nothing", got)
	}
}

func TestCompileRowsTellsWhatIsWrong(t *testing.T) {
	tests := []struct {
		row  ReplyRow
		want string
	}{
		{ReplyRow{Protocol: "smpt", Command: "AUTH", Means: "failure"}, `unknown protocol "smpt"`},
		{ReplyRow{Protocol: "smtp", Command: "LOGIN", Means: "failure"}, `unknown command "LOGIN"`},
		{ReplyRow{Protocol: "smtp", Command: "AUTH", Means: "fail"}, `unknown meaning "fail"`},
		{ReplyRow{Protocol: "smtp", Command: "RCPT", Means: "failure"}, `for the command AUTH only`},
		{ReplyRow{Protocol: "smtp", Command: "RCPT", Text: "(", Means: "nothing"}, `missing closing )`},
	}
	for _, test := range tests {
		_, err := CompileRows([]ReplyRow{{Protocol: "smtp", Command: "AUTH", Means: "neutral"}, test.row})
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "reply row 2") {
			t.Errorf("%+v: got %v, want row 2 and %q", test.row, err, test.want)
		}
	}
}
