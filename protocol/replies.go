package protocol

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// A ReplyRow says what a server's reply means. The first row that matches
// decides; an operator's own rows go before those of the known servers.
type ReplyRow struct {
	// Protocol is "smtp" (also for submission), "imap", "pop3", "managesieve".
	Protocol string `toml:"protocol"`
	// Command is what the reply answers: "AUTH" (any login), "CONNECT" (the
	// greeting), "EHLO" (also for HELO), "MAIL", "RCPT", "DATA", "MESSAGE" (the
	// reply after a message's last byte), or "*" for any of them and for a
	// reply that nobody asked for; rows for "*" are tried after the others.
	Command string `toml:"command"`
	// Code is the start of the reply's code: "535", "5", "NO", "-ERR", or
	// "close" for a server that closes the connection instead of replying.
	// "" matches any reply.
	Code string `toml:"code"`
	// Enhanced is the enhanced status or response code: "5.7.8",
	// "AUTHENTICATIONFAILED"; one that ends in a dot ("4.") or a slash
	// ("SYS/") matches what begins so; "" matches any, "-" matches none given.
	Enhanced string `toml:"enhanced"`
	// Text is a regular expression on the reply's texts, "" for any. Case is
	// ignored. What the client said itself (an address in angle brackets) is
	// taken out before.
	Text string `toml:"text"`
	// Means is an outcome ("failure", "neutral", "success", "penalty"), an
	// event's kind, or "nothing". In a row for AUTH an event's kind leaves the
	// credential neutral.
	Means string `toml:"means"`
}

// A ReplyTable is compiled rows, an operator's and our own. It is immutable and
// shared by all conversations.
type ReplyTable struct {
	rows map[replyKey][]compiledRow
}

// A replyKey is what rows are sorted by.
type replyKey struct{ protocol, command string }

type compiledRow struct {
	code, enhanced string
	text           *regexp.Regexp
	means          meaning
}

// A meaning is what a reply stands for. The zero meaning is nothing.
type meaning struct {
	outcome Outcome
	kind    Kind
}

// A reply is what a conversation has read of a server's reply.
type reply struct {
	// code is "535", "NO", "-ERR" or "close".
	code string
	// enhanced is the enhanced status or response code, "" if none.
	enhanced string
	// text is all texts, one a line, without codes.
	text string
	// lines are an SMTP reply whose text has not been read yet. Few replies are
	// asked for it.
	lines []byte
}

// label is the reply's code without its text, as an event or an outcome
// carries it.
func (r reply) label() string {
	if r.enhanced == "" {
		return r.code
	}
	return r.code + " " + r.enhanced
}

// CompileRows makes a table of an operator's rows, in their order, followed by
// our own. The error names the row, counted from 1, and what is wrong with it.
func CompileRows(rows []ReplyRow) (*ReplyTable, error) {
	t := &ReplyTable{rows: make(map[replyKey][]compiledRow)}
	for i, row := range rows {
		if err := t.add(row); err != nil {
			return nil, fmt.Errorf("reply row %d: %w", i+1, err)
		}
	}
	for _, own := range [][]ReplyRow{smtpRows, imapRows, pop3Rows, sieveRows} {
		for _, row := range own {
			if err := t.add(row); err != nil {
				return nil, fmt.Errorf("built-in reply row %+v: %w", row, err)
			}
		}
	}
	return t, nil
}

// builtinTable is the table without an operator's rows.
var builtinTable = sync.OnceValue(func() *ReplyTable {
	t, err := CompileRows(nil)
	if err != nil {
		// The rows are in this package and a test compiles them.
		panic(err)
	}
	return t
})

// replies gives the setup's table.
func (s *Setup) replies() *ReplyTable {
	if s.Replies != nil {
		return s.Replies
	}
	return builtinTable()
}

// replyCommands are the commands that a row may name.
var replyCommands = []string{"AUTH", "CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "MESSAGE", "*"}

// replyProtocols are the protocols that a row may name.
var replyProtocols = []string{"smtp", "imap", "pop3", "managesieve"}

// replyKinds are the events that a reply can stand for.
var replyKinds = []Kind{InvalidRcpt, RelayDenied, Pipelining, BadCommand, TooManyErrors, LineTooLong,
	BareNewline, ForeignProtocol, PlaintextAuth, UnknownMechanism, AuthAborted, AuthNotOffered,
	HeloRejected, SenderRejected, ClientRejected, ListedClient, ContentRejected}

func (t *ReplyTable) add(row ReplyRow) error {
	if !slices.Contains(replyProtocols, row.Protocol) {
		return fmt.Errorf("unknown protocol %q: use one of %s", row.Protocol, strings.Join(replyProtocols, ", "))
	}
	if !slices.Contains(replyCommands, row.Command) {
		return fmt.Errorf("unknown command %q: use one of %s", row.Command, strings.Join(replyCommands, ", "))
	}
	means, err := parseMeaning(row.Means)
	if err != nil {
		return err
	}
	if means.outcome != Unsettled && row.Command != "AUTH" {
		return fmt.Errorf("%q is for the command AUTH only: use an event's kind or \"nothing\"", row.Means)
	}
	c := compiledRow{code: row.Code, enhanced: row.Enhanced, means: means}
	if row.Text != "" {
		if c.text, err = regexp.Compile("(?is)" + row.Text); err != nil {
			return fmt.Errorf("text %q: %w", row.Text, err)
		}
	}
	key := replyKey{row.Protocol, row.Command}
	t.rows[key] = append(t.rows[key], c)
	return nil
}

// parseMeaning reads a row's Means.
func parseMeaning(word string) (meaning, error) {
	switch word {
	case "success":
		return meaning{outcome: Success}, nil
	case "failure":
		return meaning{outcome: Failure}, nil
	case "neutral":
		return meaning{outcome: Neutral}, nil
	case "penalty":
		return meaning{outcome: Penalty}, nil
	case "nothing":
		return meaning{}, nil
	}
	if slices.Contains(replyKinds, Kind(word)) {
		return meaning{kind: Kind(word)}, nil
	}
	return meaning{}, fmt.Errorf("unknown meaning %q: use failure, neutral, success, penalty, nothing or an event's kind", word)
}

// lookup says what a reply to a command means; nothing, if no row knows it.
func (t *ReplyTable) lookup(protocol, command string, r reply) meaning {
	r.read()
	for _, key := range [...]replyKey{{protocol, command}, {protocol, "*"}} {
		for i := range t.rows[key] {
			if row := &t.rows[key][i]; row.matches(r) {
				return row.means
			}
		}
	}
	return meaning{}
}

func (c *compiledRow) matches(r reply) bool {
	if (c.code == "close") != (r.code == "close") || !strings.HasPrefix(r.code, c.code) {
		return false
	}
	switch {
	case c.enhanced == "":
	case c.enhanced == "-":
		if r.enhanced != "" {
			return false
		}
	case strings.HasSuffix(c.enhanced, ".") || strings.HasSuffix(c.enhanced, "/"):
		if !strings.HasPrefix(r.enhanced, c.enhanced) {
			return false
		}
	case c.enhanced != r.enhanced:
		return false
	}
	return c.text == nil || c.text.MatchString(r.text)
}
