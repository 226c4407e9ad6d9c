package protocol_test

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"mailreeve/protocol"
	"mailreeve/protocol/transcript"
)

// An imapModel is a server that understands IMAP in a way of its own: it shows
// what a server makes of the bytes that reach it. Quirks are where servers
// differ from each other.
type imapModel struct {
	t     *testing.T
	relay *pocketRelay

	// Quirks: literalPlus offers LITERAL+; refusing answers NO instead of "+"
	// to literals; quotes heeds quoted strings when it looks for a literal;
	// dropping forgets the backslash of a needless escape.
	literalPlus, refusing, quotes, dropping bool

	greeted, in, idle bool
	buf               []byte
	literal           int
	text              []byte   // the command so far; a literal stands as \x00
	literals          [][]byte // the literals of the command
	challenge         string   // the tag of an AUTHENTICATE that waits
	// saw are the names that tried to log in, in order.
	saw []string
}

var modelLiteral = regexp.MustCompile(`\{([0-9]{1,9})(\+?)\}$`)

func (m *imapModel) hear(b []byte) {
	if !m.greeted {
		m.greeted = true
		m.caps("* OK [CAPABILITY", "] ready")
	}
	m.buf = append(m.buf, b...)
	for {
		if m.literal > 0 {
			n := min(m.literal, len(m.buf))
			last := len(m.literals) - 1
			m.literals[last] = append(m.literals[last], m.buf[:n]...)
			m.literal -= n
			m.buf = m.buf[n:]
			if m.literal > 0 {
				return
			}
		}
		end := bytes.IndexByte(m.buf, '\n')
		if end < 0 {
			return
		}
		line := string(bytes.TrimSuffix(m.buf[:end], []byte("\r")))
		m.buf = m.buf[end+1:]
		m.line(line)
	}
}

func (m *imapModel) say(s string) { m.relay.answer([]byte(s + "\r\n")) }

func (m *imapModel) caps(before, after string) {
	list := " IMAP4rev1 SASL-IR UNAUTHENTICATE COMPRESS=DEFLATE"
	if m.literalPlus {
		list += " LITERAL+"
	}
	m.say(before + list + after)
}

func (m *imapModel) line(line string) {
	switch {
	case m.idle:
		m.idle = false
		m.say(string(m.text) + " OK idled")
		m.text = nil
		return
	case m.challenge != "":
		tag := m.challenge
		m.challenge = ""
		m.sasl(tag, line)
		return
	}
	m.text = append(m.text, line...)
	if at := modelLiteral.FindStringSubmatchIndex(line); at != nil && !(m.quotes && strings.Count(line, `"`)%2 == 1) {
		size, _ := strconv.Atoi(line[at[2]:at[3]])
		m.text = append(m.text[:len(m.text)-(at[1]-at[0])], 0)
		if at[4] == at[5] {
			if m.refusing {
				tag, _, _ := strings.Cut(string(m.text), " ")
				m.text, m.literals = nil, nil
				m.say(tag + " NO no literals")
				return
			}
			m.say("+ go on")
		}
		m.literals = append(m.literals, nil)
		m.literal = size
		return
	}
	text, literals := string(m.text), m.literals
	m.text, m.literals = nil, nil
	m.command(text, literals)
}

func (m *imapModel) command(text string, literals [][]byte) {
	tag, rest, _ := strings.Cut(text, " ")
	verb, args, _ := strings.Cut(rest, " ")
	switch verb = strings.ToUpper(verb); verb {
	case "STARTTLS", "COMPRESS", "UNAUTHENTICATE":
		if !m.relay.blind {
			m.t.Fatalf("%s reached the server", verb)
		}
	case "ID":
		for rest := strings.Trim(args, " ()"); rest != "" && !m.in; {
			var field string
			if field, rest = m.argument(rest, &literals); strings.HasPrefix(strings.ToLower(field), "x-") {
				m.t.Fatalf("an ID field for proxies reached the server: %q", args)
			}
			rest = strings.TrimLeft(rest, " ")
		}
		m.say(tag + " OK done")
	case "LOGIN":
		m.login(tag, args, literals)
	case "AUTHENTICATE":
		mech, initial, has := strings.Cut(args, " ")
		switch {
		case !strings.EqualFold(mech, "PLAIN"):
			m.say(tag + " NO mechanism not supported")
		case has:
			m.sasl(tag, initial)
		default:
			m.challenge = tag
			m.say("+ ")
		}
	case "IDLE":
		m.idle, m.text = true, []byte(tag)
		m.say("+ idling")
	case "CAPABILITY":
		m.caps("* CAPABILITY", "")
		m.say(tag + " OK done")
	case "NOOP", "APPEND", "LANGUAGE":
		m.say(tag + " OK done")
	default:
		m.say(tag + " BAD what?")
	}
}

func (m *imapModel) login(tag, args string, literals [][]byte) {
	name, rest := m.argument(args, &literals)
	password, _ := m.argument(strings.TrimLeft(rest, " "), &literals)
	m.attempt(tag, name, password)
}

func (m *imapModel) argument(args string, literals *[][]byte) (value, rest string) {
	args = strings.TrimLeft(args, " ")
	switch {
	case strings.HasPrefix(args, "\x00") && len(*literals) > 0:
		value, *literals = string((*literals)[0]), (*literals)[1:]
		return value, args[1:]
	case strings.HasPrefix(args, `"`):
		for i := 1; i < len(args); i++ {
			if args[i] == '\\' && i+1 < len(args) {
				i++
				if !m.dropping && args[i] != '"' && args[i] != '\\' {
					value += `\`
				}
			} else if args[i] == '"' {
				return value, args[i+1:]
			}
			value += args[i : i+1]
		}
		return value, ""
	}
	value, rest, _ = strings.Cut(args, " ")
	return value, rest
}

func (m *imapModel) sasl(tag, response string) {
	if response == "*" {
		m.say(tag + " BAD aborted")
		return
	}
	text, err := base64.StdEncoding.DecodeString(response)
	parts := strings.Split(string(text), "\x00")
	if err != nil || len(parts) != 3 {
		m.say(tag + " BAD garbled")
		return
	}
	m.attempt(tag, parts[1], parts[2])
}

func (m *imapModel) attempt(tag, name, password string) {
	if m.in {
		if !m.relay.blind {
			m.t.Fatalf("a second login reached the server")
		}
		return
	}
	m.saw = append(m.saw, name)
	if password == "secret" {
		m.in = true
		m.say(tag + " OK [CAPABILITY IMAP4rev1 UNAUTHENTICATE] in")
		return
	}
	m.say(tag + " NO [AUTHENTICATIONFAILED] no")
}

// counted is a name as it is counted.
func counted(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, name)
	return name[:min(len(name), 200)]
}

// FuzzIMAPServerSees checks that a server, whatever its quirks, is never asked
// to judge a login that the guard has not let pass under the same name.
func FuzzIMAPServerSees(f *testing.F) {
	p := protocol.Lookup("imap")
	seeds(f, "testdata/imap", func(_ *transcript.Transcript, client, _ []byte) {
		f.Add(client, byte(0))
		f.Add(client, byte(15))
	})
	f.Fuzz(func(t *testing.T, client []byte, quirks byte) {
		var passed [][]string
		r := &pocketRelay{t: t, conv: p.New(protocol.Setup{
			Offer: &protocol.Offer{}, TLS: protocol.TLSImplicit, Secure: true, Soft: quirks&16 != 0,
		})}
		r.verdict = func(c *protocol.Credential) protocol.Verdict {
			if quirks&32 != 0 && len(c.Secret)%2 == 0 {
				return protocol.Refused
			}
			passed = append(passed, c.Identities)
			return protocol.Pass
		}
		m := &imapModel{t: t, relay: r, literalPlus: quirks&1 != 0, refusing: quirks&2 != 0,
			quotes: quirks&4 != 0, dropping: quirks&8 != 0}
		r.hear = m.hear
		r.start()
		for len(client) > 0 && !r.ended {
			n := min(64, len(client))
			r.send(client[:n])
			client = client[n:]
		}
		checkSaw(t, m.saw, passed)
	})
}
