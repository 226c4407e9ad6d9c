// Package transcript reads dialogues written down as text, and plays them
// against a conversation.
//
// A transcript is a claim and the dialogue that shows it. It is read line by
// line:
//
//	# text             the claim (the first such line; required), then remarks
//	: key=value …      the setup, see below
//	C: text            the client says this line, and it reaches the server
//	C- text            the client says this line, and it goes no further
//	C~ text            the client says this line, and it waits
//	=C                 here the line that has waited longest reaches the server
//	S: text            the server says this line, and it reaches the client
//	S- text            the server says this line, and it goes no further
//	P: text            the proxy itself says this line to the client
//	>: text            the proxy itself says this line to the server
//	! kind key=value … the guard is told this: an event's kind, or "success",
//	                   "auth-failure", "neutral" or "penalty" for a credential's
//	                   outcome; keys: login, recipient, code
//	? verdict key=value …
//	                   the guard is asked about a credential and answers so;
//	                   keys: login (the first identity), identities (all,
//	                   with commas), mechanism, secret
//	-- dial --         the server is dialled; "-- dial fails --": in vain
//	-- tls --          the client is told to begin TLS, and does
//	-- server closes --
//	-- blind --        from here on nobody looks; C: and S: still count
//	-- end --          the connection ends
//	-- phase: name --  the conversation is in this phase
//
// A text stands for a line that ends in CRLF. \r \n \t \0 \xNN and \\ are
// escapes, \*1000{text} repeats text, and a single \ at the end leaves out the
// CRLF. A line with P or >: stands behind the line that brings it about. Keys
// that are not given are not compared, but an event, a question, an action or
// a byte that is not in the transcript is a failure: silence is tested too.
//
// What reaches the other side may come later than the line that carried it
// (commands that must wait), but never earlier, and never in another order.
// What is marked with P, >, !, ? or -- must have come before the next line of
// the client or server is spoken.
//
// The setup's keys are those of protocol.Setup: tls, secure, plaintext-auth,
// no-auth, soft, hostname, sep, xclient (the client's address and port, a
// comma, and ours), and of its Offer: host, caps (with semicolons), family.
// "delivery=lines" and "delivery=coalesced" leave out the plays with other
// borders.
//
// A blank line parts what cannot come at once, such as a server's greeting and
// its reply to a command that is sent only after the greeting.
package transcript

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"mailreeve/protocol"
)

// A Transcript is a dialogue with its claim.
type Transcript struct {
	// Claim is the first remark.
	Claim string
	// Setup is what the conversation knows at its start.
	Setup protocol.Setup
	// Delivery is the only delivery to play it in, "" for all: other borders
	// would make it another dialogue.
	Delivery string
	// Entries are the dialogue's lines, in order.
	Entries []Entry
}

// A Mark says what an entry is.
type Mark uint8

const (
	// Client: the client says Text.
	Client Mark = iota
	// Server: the server says Text.
	Server
	// ToClient: the proxy says Text to the client.
	ToClient
	// ToServer: the proxy says Text to the server.
	ToServer
	// Told: the guard is told Word.
	Told
	// Asked: the guard is asked and answers Word.
	Asked
	// Action: Word happens.
	Action
	// Released: the client's line that has waited longest reaches the server.
	Released
)

// An Entry is one line of a dialogue.
type Entry struct {
	// Line is its number in the file, from 1.
	Line int
	Mark Mark
	// Text is what is said, with its line end.
	Text []byte
	// Apart is set behind a blank line.
	Apart bool
	// Swallowed is set for what goes no further than to us.
	Swallowed bool
	// Waits is set for what reaches the other side later, at Released.
	Waits bool
	// Word is an event's kind or outcome, a verdict, or an action.
	Word string
	// Keys are the values to compare.
	Keys map[string]string
}

// ReadFile reads a transcript from a file.
func ReadFile(name string) (*Transcript, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	t, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", name, err)
	}
	return t, nil
}

// Parse reads a transcript. Its errors begin with the line's number.
func Parse(text []byte) (*Transcript, error) {
	t := &Transcript{Setup: protocol.Setup{
		Hostname: "proxy.example.test",
		Offer:    &protocol.Offer{Host: "mx.example.test"},
		TLS:      protocol.TLSNone,
	}}
	apart := false
	for i, line := range strings.Split(string(text), "\n") {
		if line == "" {
			apart = true
			continue
		}
		before := len(t.Entries)
		if err := t.parseLine(i+1, line); err != nil {
			return nil, fmt.Errorf("%d: %w", i+1, err)
		}
		if len(t.Entries) > before {
			t.Entries[before].Apart = apart
			apart = false
		}
	}
	if t.Claim == "" {
		return nil, fmt.Errorf("1: no claim: begin with a line \"# what this shows\"")
	}
	return t, nil
}

// marks are the beginnings of lines that say something.
var marks = []struct {
	begin            string
	mark             Mark
	swallowed, waits bool
}{
	{begin: "C:", mark: Client},
	{begin: "C-", mark: Client, swallowed: true},
	{begin: "C~", mark: Client, waits: true},
	{begin: "S:", mark: Server},
	{begin: "S-", mark: Server, swallowed: true},
	{begin: "P:", mark: ToClient},
	{begin: ">:", mark: ToServer},
}

func (t *Transcript) parseLine(number int, line string) error {
	switch {
	case line[0] == '#':
		if t.Claim == "" {
			t.Claim = strings.TrimSpace(line[1:])
		}
		return nil
	case line == "=C":
		t.Entries = append(t.Entries, Entry{Line: number, Mark: Released})
		return nil
	case strings.HasPrefix(line, ": "):
		return t.parseSetup(line[2:])
	case strings.HasPrefix(line, "-- ") && strings.HasSuffix(line, " --"):
		t.Entries = append(t.Entries, Entry{Line: number, Mark: Action, Word: line[3 : len(line)-3]})
		return nil
	case strings.HasPrefix(line, "! "), strings.HasPrefix(line, "? "):
		mark := Told
		if line[0] == '?' {
			mark = Asked
		}
		word, rest, _ := strings.Cut(line[2:], " ")
		keys, err := parseKeys(rest)
		if err != nil {
			return err
		}
		t.Entries = append(t.Entries, Entry{Line: number, Mark: mark, Word: word, Keys: keys})
		return nil
	}
	for _, m := range marks {
		rest, ok := strings.CutPrefix(line, m.begin)
		if !ok {
			continue
		}
		text, err := unescape(strings.TrimPrefix(rest, " "))
		if err != nil {
			return err
		}
		t.Entries = append(t.Entries, Entry{Line: number, Mark: m.mark, Text: text, Swallowed: m.swallowed, Waits: m.waits})
		return nil
	}
	return fmt.Errorf("what is %q? See the package comment", line)
}

// parseSetup reads the keys of a setup line.
func (t *Transcript) parseSetup(text string) error {
	keys, err := parseKeys(text)
	if err != nil {
		return err
	}
	offer := *t.Setup.Offer
	t.Setup.Offer = &offer
	for key, value := range keys {
		yes := value == "true"
		switch key {
		case "tls":
			t.Setup.TLS = protocol.TLSMode(value)
		case "secure":
			t.Setup.Secure = yes
		case "plaintext-auth":
			t.Setup.PlaintextAuth = yes
		case "no-auth":
			t.Setup.NoAuth = yes
		case "soft":
			t.Setup.Soft = yes
		case "hostname":
			t.Setup.Hostname = value
		case "sep":
			t.Setup.MasterSeparator = value
		case "xclient":
			client, local, _ := strings.Cut(value, ",")
			who := &protocol.ClientAddress{}
			if who.Client, err = netip.ParseAddrPort(client); err == nil {
				who.Local, err = netip.ParseAddrPort(local)
			}
			if err != nil {
				return err
			}
			t.Setup.XClient = who
		case "host":
			offer.Host = value
		case "caps":
			offer.Capabilities = nil
			if value != "" {
				offer.Capabilities = strings.Split(value, ";")
			}
		case "family":
			offer.Family = value
		case "delivery":
			t.Delivery = value
		default:
			return fmt.Errorf("unknown key %q", key)
		}
	}
	return nil
}

// parseKeys reads key=value pairs; a value may stand in double quotes.
func parseKeys(text string) (map[string]string, error) {
	keys := make(map[string]string)
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		key, rest, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not key=value", text)
		}
		value := rest
		if strings.HasPrefix(rest, `"`) {
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return nil, fmt.Errorf("value of %s: %w", key, err)
			}
			if value, err = strconv.Unquote(quoted); err != nil {
				return nil, fmt.Errorf("value of %s: %w", key, err)
			}
			text = rest[len(quoted):]
		} else {
			value, text, _ = strings.Cut(rest, " ")
		}
		keys[key] = value
	}
	return keys, nil
}

// unescape gives the bytes that a text stands for, with its line end.
func unescape(text string) ([]byte, error) {
	var out []byte
	for text != "" {
		if text[0] != '\\' {
			out = append(out, text[0])
			text = text[1:]
			continue
		}
		if text == `\` {
			return out, nil
		}
		bytes, rest, err := escape(text[1:])
		if err != nil {
			return nil, err
		}
		out = append(out, bytes...)
		text = rest
	}
	return append(out, '\r', '\n'), nil
}

// escape reads what stands behind a backslash.
func escape(text string) (out []byte, rest string, err error) {
	switch text[0] {
	case 'r':
		return []byte{'\r'}, text[1:], nil
	case 'n':
		return []byte{'\n'}, text[1:], nil
	case 't':
		return []byte{'\t'}, text[1:], nil
	case '0':
		return []byte{0}, text[1:], nil
	case '\\':
		return []byte{'\\'}, text[1:], nil
	case 'x':
		if len(text) < 3 {
			break
		}
		n, err := strconv.ParseUint(text[1:3], 16, 8)
		return []byte{byte(n)}, text[3:], err
	case '*':
		count, repeated, ok := strings.Cut(text[1:], "{")
		part, rest, closed := strings.Cut(repeated, "}")
		n, err := strconv.Atoi(count)
		if !ok || !closed || err != nil || n > 1<<24 {
			break
		}
		inner, err := unescape(part + `\`)
		return bytes.Repeat(inner, n), rest, err
	}
	return nil, "", fmt.Errorf("unknown escape \\%s", text)
}
