package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// What the demo keeps of Sieve scripts at most, by user and in bytes.
const (
	maxDemoScripts = 10
	maxDemoScript  = 64 << 10
)

// demoScripts are the users' Sieve scripts. They are kept and not run: the demo
// delivers everything to the inbox.
type demoScripts struct {
	mu     sync.Mutex
	texts  map[string]map[string]string // by login and name
	active map[string]string
}

// A demoSieve is a ManageSieve session (RFC 5804), as far as a client needs it
// to keep scripts.
type demoSieve struct {
	net.Conn
	server *demoServer
	lines  *bufio.Reader
	login  string
}

// serveSieve serves ManageSieve until the listener is closed.
func (s *demoServer) serveSieve(l net.Listener) {
	s.serveEach(l, func(c net.Conn) {
		(&demoSieve{Conn: c, server: s, lines: bufio.NewReaderSize(c, demoLine)}).serve()
	})
}

// errSieve is a command that cannot be read any further.
var errSieve = errors.New("the command is not understood")

func (m *demoSieve) serve() {
	m.capabilities()
	for {
		verb, args, err := m.command()
		if errors.Is(err, errSieve) {
			m.say("BYE " + strconv.Quote(err.Error()))
		}
		if err != nil {
			return
		}
		switch {
		case verb == "LOGOUT":
			m.say(`OK "bye"`)
			return
		case verb == "CAPABILITY":
			m.capabilities()
		case verb == "NOOP":
			m.say(`OK "done"`)
		case verb == "AUTHENTICATE" && m.login == "":
			m.authenticate(args)
		case m.login == "":
			m.say(`NO "log in first"`)
		default:
			m.script(verb, args)
		}
	}
}

func (m *demoSieve) say(text string) { _, _ = io.WriteString(m, text+"\r\n") } // as demoPOP3.say

func (m *demoSieve) capabilities() {
	m.say("\"IMPLEMENTATION\" \"mailreeve demo\"\r\n\"SIEVE\" \"fileinto\"\r\n\"SASL\" \"PLAIN\"\r\n\"VERSION\" \"1.0\"\r\nOK \"ready\"")
}

// command reads a command with its arguments: atoms, quoted strings and
// literals.
func (m *demoSieve) command() (verb string, args []string, err error) {
	line, err := readDemoLine(m, m.lines)
	if err != nil {
		return "", nil, err
	}
	verb, rest, _ := strings.Cut(line, " ")
	for {
		rest = strings.TrimLeft(rest, " ")
		switch {
		case rest == "":
			return strings.ToUpper(verb), args, nil
		case rest[0] == '"':
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 || strings.Contains(rest[:end+1], `\`) {
				return "", nil, errSieve
			}
			args, rest = append(args, rest[1:end+1]), rest[end+2:]
		case rest[0] == '{':
			text, next, err := m.literal(rest)
			if err != nil {
				return "", nil, err
			}
			args, rest = append(args, text), next
		default:
			atom, next, _ := strings.Cut(rest, " ")
			args, rest = append(args, atom), next
		}
		if len(args) > 4 {
			return "", nil, errSieve
		}
	}
}

// literal reads "{n+}" and the n bytes after the line, and gives the rest of the
// command.
func (m *demoSieve) literal(text string) (literal, rest string, err error) {
	n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSuffix(text[1:], "}"), "+"))
	if err != nil || n < 0 || n > maxDemoScript {
		return "", "", errSieve
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(m.lines, data); err != nil {
		return "", "", err
	}
	rest, err = readDemoLine(m, m.lines)
	return string(data), rest, err
}

func (m *demoSieve) authenticate(args []string) {
	if len(args) == 0 || !strings.EqualFold(args[0], "PLAIN") {
		m.say(`NO "unknown mechanism"`)
		return
	}
	if len(args) == 1 {
		m.say(`""`)
		response, err := readDemoLine(m, m.lines)
		if strings.HasPrefix(response, "{") && err == nil {
			response, _, err = m.literal(response)
		}
		if err != nil {
			return // the next read says so again
		}
		args = append(args, strings.Trim(response, `"`))
	}
	login, password, err := demoPlain(args[1])
	if err != nil || !m.server.right(login, password) {
		m.say(`NO "Authentication failed."`)
		return
	}
	m.login = login
	m.say(`OK "logged in"`)
}

// script carries out what is possible after the login.
func (m *demoSieve) script(verb string, args []string) {
	s := &m.server.scripts
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := s.texts[m.login]
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	text, known := mine[name]
	switch {
	case verb == "LISTSCRIPTS":
		for _, n := range slices.Sorted(maps.Keys(mine)) {
			if n == s.active[m.login] {
				m.say(strconv.Quote(n) + " ACTIVE")
			} else {
				m.say(strconv.Quote(n))
			}
		}
		m.say("OK")
	case verb == "HAVESPACE" && name != "", verb == "CHECKSCRIPT":
		m.say("OK")
	case verb == "PUTSCRIPT" && len(args) == 2 && name != "":
		if !known && len(mine) >= maxDemoScripts {
			m.say(`NO (QUOTA/MAXSCRIPTS) "too many scripts"`)
			return
		}
		if mine == nil {
			mine = map[string]string{}
			s.texts[m.login] = mine
		}
		mine[name] = args[1]
		m.say("OK")
	case verb == "SETACTIVE" && (known || name == "" && len(args) == 1):
		s.active[m.login] = name
		m.say("OK")
	case verb == "GETSCRIPT" && known:
		m.say(fmt.Sprintf("{%d}\r\n%s\r\nOK", len(text), text))
	case verb == "DELETESCRIPT" && known && name != s.active[m.login]:
		delete(mine, name)
		m.say("OK")
	case name != "" && !known:
		m.say(`NO (NONEXISTENT) "there is no such script"`)
	default:
		m.say(`NO "that cannot be done"`)
	}
}
