package protocol_test

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mailreeve/protocol"
	"mailreeve/protocol/transcript"
)

// A modelServer is what the models of POP3 and ManageSieve share: they note
// every name that they were asked to judge.
type modelServer struct {
	t     *testing.T
	relay *pocketRelay
	buf   []byte
	// in: somebody is logged in; challenged: the next line is a response.
	in, greeted, challenged bool
	saw                     []string
}

func (m *modelServer) say(s string) { m.relay.answer([]byte(s + "\r\n")) }

// attempt judges a name and a password.
func (m *modelServer) attempt(name, password string) bool {
	if m.in {
		// Nobody looks any more, and this server takes no second login.
		if !m.relay.blind {
			m.t.Fatalf("a second login reached the server")
		}
		return false
	}
	m.saw = append(m.saw, name)
	m.in = m.in || password == "secret"
	return password == "secret"
}

// plain judges a response of PLAIN.
func (m *modelServer) plain(response string) (ok, garbled bool) {
	text, err := base64.StdEncoding.DecodeString(response)
	parts := strings.Split(string(text), "\x00")
	if err != nil || len(parts) != 3 {
		return false, true
	}
	return m.attempt(parts[1], parts[2]), false
}

// A pop3Model is a POP3 server that remembers USER for ever, ends lines at any
// LF, and has a command with a long reply.
type pop3Model struct {
	modelServer
	user string
}

func (m *pop3Model) hear(b []byte) {
	if !m.greeted {
		m.greeted = true
		m.say("+OK ready")
	}
	m.buf = append(m.buf, b...)
	for {
		end := bytes.IndexByte(m.buf, '\n')
		if end < 0 {
			return
		}
		line := strings.TrimRight(string(m.buf[:end]), "\r")
		m.buf = m.buf[end+1:]
		m.line(line)
	}
}

func (m *pop3Model) line(line string) {
	if m.challenged {
		m.challenged = false
		m.reply(m.plain(line))
		return
	}
	verb, args, _ := strings.Cut(line, " ")
	switch verb = strings.ToUpper(verb); verb {
	case "USER":
		m.user = strings.TrimSpace(args)
		m.say("+OK")
	case "PASS":
		m.reply(m.attempt(m.user, args), false)
	case "AUTH":
		mech, initial, has := strings.Cut(args, " ")
		switch {
		case mech == "":
			m.say("+OK\r\nPLAIN\r\n+OK\r\n-ERR [AUTH] failed\r\n.")
		case !strings.EqualFold(mech, "PLAIN"):
			m.say("-ERR no such mechanism")
		case has:
			m.reply(m.plain(initial))
		default:
			m.challenged = true
			m.say("+ ")
		}
	case "CAPA", "LANG":
		if verb == "LANG" && strings.TrimSpace(args) != "" {
			m.say("+OK")
			return
		}
		m.say("+OK\r\nSTLS\r\n-ERR [AUTH] failed\r\n.")
	case "NOOP", "QUIT", "UTF8":
		m.say("+OK")
	default:
		if !m.relay.blind {
			m.t.Fatalf("%q reached the server", line)
		}
	}
}

func (m *pop3Model) reply(ok, garbled bool) {
	switch {
	case ok:
		m.say("+OK in")
	case garbled:
		m.say("-ERR aborted")
	default:
		m.say("-ERR [AUTH] Authentication failed.")
	}
}

// A sieveModel is a ManageSieve server that reads a literal wherever a line
// seems to announce one.
type sieveModel struct {
	modelServer
	text    string
	strings []string
	left    int
}

func (m *sieveModel) hear(b []byte) {
	if !m.greeted {
		m.greeted = true
		m.say("\"SASL\" \"PLAIN\"\r\nOK")
	}
	m.buf = append(m.buf, b...)
	for {
		if m.left > 0 {
			n := min(m.left, len(m.buf))
			m.strings[len(m.strings)-1] += string(m.buf[:n])
			m.buf, m.left = m.buf[n:], m.left-n
			if m.left > 0 {
				return
			}
		}
		end := bytes.IndexByte(m.buf, '\n')
		if end < 0 {
			return
		}
		m.text += strings.TrimRight(string(m.buf[:end]), "\r")
		m.buf = m.buf[end+1:]
		if at := modelLiteral.FindStringSubmatchIndex(m.text); at != nil {
			m.left, _ = strconv.Atoi(m.text[at[2]:at[3]])
			m.text = m.text[:at[0]] + "\x00"
			m.strings = append(m.strings, "")
			continue
		}
		text := m.text
		m.text = ""
		m.command(text)
		m.strings = nil
	}
}

// argument takes one string off a command.
func (m *sieveModel) argument(args *string) string {
	*args = strings.TrimLeft(*args, " ")
	switch {
	case strings.HasPrefix(*args, "\x00") && len(m.strings) > 0:
		value := m.strings[0]
		m.strings, *args = m.strings[1:], (*args)[1:]
		return value
	case strings.HasPrefix(*args, `"`):
		value, rest, _ := strings.Cut((*args)[1:], `"`)
		*args = rest
		return value
	}
	value, rest, _ := strings.Cut(*args, " ")
	*args = rest
	return value
}

func (m *sieveModel) command(text string) {
	if m.challenged {
		m.challenged = false
		m.reply(m.plain(m.argument(&text)))
		return
	}
	verb, args, _ := strings.Cut(text, " ")
	switch verb = strings.ToUpper(verb); verb {
	case "AUTHENTICATE":
		mech := m.argument(&args)
		switch {
		case !strings.EqualFold(mech, "PLAIN"):
			m.say(`NO "Unsupported authentication mechanism."`)
		case strings.TrimSpace(args) != "":
			m.reply(m.plain(m.argument(&args)))
		default:
			m.challenged = true
			m.say(`""`)
		}
	case "STARTTLS", "UNAUTHENTICATE", "XCLIENT":
		m.t.Fatalf("%q reached the server", text)
	case "CAPABILITY":
		m.say("\"SIEVE\" {18}\r\nNO \"failed\"\r\nOK\r\n\r\n\"UNAUTHENTICATE\"\r\nOK {4}\r\ndone")
	case "NOOP":
		if args != "" && !m.in {
			// Its tag would come back as lines of the client's choice.
			m.t.Fatalf("%q reached the server", text)
		}
		m.say("OK")
	case "LOGOUT":
		m.say("OK")
	default:
		if !m.in {
			m.t.Fatalf("%q reached the server", text)
		}
		m.say(`NO "no"`)
	}
}

func (m *sieveModel) reply(ok, garbled bool) {
	switch {
	case ok:
		m.say("OK")
	case garbled:
		m.say(`NO "aborted"`)
	default:
		m.say(`NO "Authentication failed."`)
	}
}

// fuzzServerSees lets a client say anything to a model, and checks that every
// name it was asked to judge is one that the guard let pass, in that order.
func fuzzServerSees(f *testing.F, name string, model func(*testing.T, *pocketRelay) (hear func([]byte), saw *[]string)) {
	f.Helper()
	p := protocol.Lookup(name)
	seeds(f, "testdata/"+name, func(_ *transcript.Transcript, client, _ []byte) {
		f.Add(client, byte(0))
	})
	f.Fuzz(func(t *testing.T, client []byte, flags byte) {
		var passed [][]string
		r := &pocketRelay{t: t, conv: p.New(protocol.Setup{
			Offer: &protocol.Offer{}, TLS: protocol.TLSImplicit, Secure: true, Soft: flags&1 != 0,
		})}
		r.verdict = func(c *protocol.Credential) protocol.Verdict {
			if flags&2 != 0 && len(c.Secret)%2 == 0 {
				return protocol.Refused
			}
			passed = append(passed, c.Identities)
			return protocol.Pass
		}
		hear, saw := model(t, r)
		r.hear = hear
		r.start()
		for len(client) > 0 && !r.ended {
			n := min(64, len(client))
			r.send(client[:n])
			client = client[n:]
		}
		checkSaw(t, *saw, passed)
	})
}

// checkSaw checks that the names a server saw are among those that passed, in
// their order.
func checkSaw(t *testing.T, saw []string, passed [][]string) {
	t.Helper()
	at := 0
	for _, name := range saw {
		name = counted(name)
		for at < len(passed) && name != "" && !slices.ContainsFunc(passed[at], func(id string) bool {
			return strings.HasPrefix(id, name)
		}) {
			at++
		}
		if at == len(passed) {
			t.Fatalf("the server saw %q, the guard let pass %q", saw, passed)
		}
		at++
	}
}

func FuzzPOP3ServerSees(f *testing.F) {
	fuzzServerSees(f, "pop3", func(t *testing.T, r *pocketRelay) (func([]byte), *[]string) {
		m := &pop3Model{modelServer: modelServer{t: t, relay: r}}
		return m.hear, &m.saw
	})
}

func FuzzManageSieveServerSees(f *testing.F) {
	fuzzServerSees(f, "managesieve", func(t *testing.T, r *pocketRelay) (func([]byte), *[]string) {
		m := &sieveModel{modelServer: modelServer{t: t, relay: r}}
		return m.hear, &m.saw
	})
}
