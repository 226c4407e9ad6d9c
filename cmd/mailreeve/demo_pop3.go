package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/pires/go-proxyproto"
)

const (
	// demoLine bounds a line that the demo's small servers read, in bytes.
	demoLine = 16 << 10
	// demoIdle is for how long they wait for one.
	demoIdle = 10 * time.Minute
)

// A demoPOP3 is a POP3 session (RFC 1939). It shows the inbox that the demo's
// IMAP server has, of which it is a client.
type demoPOP3 struct {
	net.Conn
	server *demoServer
	lines  *bufio.Reader
	user   string

	inbox    *imapclient.Client // nil before the login
	messages []*imapclient.FetchMessageBuffer
	deleted  map[int]bool
}

// servePOP3 serves POP3 until the listener is closed.
func (s *demoServer) servePOP3(l net.Listener) {
	s.serveEach(l, func(c net.Conn) {
		p := &demoPOP3{Conn: c, server: s, lines: bufio.NewReaderSize(c, demoLine), deleted: map[int]bool{}}
		p.serve()
		if p.inbox != nil {
			p.inbox.Close()
		}
	})
}

func (p *demoPOP3) serve() {
	p.say("+OK mailreeve demo ready")
	for {
		line, err := readDemoLine(p, p.lines)
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(line, " ")
		verb = strings.ToUpper(verb)
		switch {
		case verb == "QUIT":
			p.quit()
			return
		case verb == "CAPA":
			p.say("+OK\r\nUSER\r\nSASL PLAIN\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n.")
		case verb == "NOOP":
			p.say("+OK")
		case p.inbox == nil:
			p.beforeLogin(verb, rest)
		default:
			p.transaction(verb, strings.Fields(rest))
		}
	}
}

// readDemoLine reads a line, without its end.
func readDemoLine(c net.Conn, lines *bufio.Reader) (string, error) {
	if err := c.SetReadDeadline(time.Now().Add(demoIdle)); err != nil {
		return "", err
	}
	line, err := lines.ReadSlice('\n')
	return strings.TrimRight(string(line), "\r\n"), err
}

// say writes lines. A client that is gone is noticed when it is read from.
func (p *demoPOP3) say(text string) { _, _ = io.WriteString(p, text+"\r\n") }

func (p *demoPOP3) beforeLogin(verb, rest string) {
	switch verb {
	case "USER":
		p.user = rest
		p.say("+OK")
	case "PASS":
		p.login(p.user, rest)
	case "AUTH":
		mechanism, response, _ := strings.Cut(rest, " ")
		if !strings.EqualFold(mechanism, "PLAIN") {
			p.say("-ERR unknown mechanism")
			return
		}
		if response == "" {
			p.say("+ ")
			var err error
			if response, err = readDemoLine(p, p.lines); err != nil {
				return
			}
		}
		login, password, err := demoPlain(response)
		if err != nil {
			p.say("-ERR " + err.Error())
			return
		}
		p.login(login, password)
	default:
		p.say("-ERR log in first")
	}
}

// demoPlain reads a response of SASL PLAIN (RFC 4616).
func demoPlain(response string) (login, password string, err error) {
	text, err := base64.StdEncoding.DecodeString(response)
	parts := strings.Split(string(text), "\x00")
	if err != nil || len(parts) != 3 {
		return "", "", errors.New("that is no response of PLAIN")
	}
	return parts[1], parts[2], nil
}

func (p *demoPOP3) login(login, password string) {
	if !p.server.right(login, password) {
		p.say("-ERR [AUTH] Authentication failed.")
		return
	}
	if err := p.open(login, password); err != nil {
		p.say("-ERR [SYS/TEMP] the mailbox cannot be opened")
		return
	}
	p.say("+OK logged in")
}

// open opens the inbox and lists its messages, which do not change for this
// session any more.
func (p *demoPOP3) open(login, password string) error {
	raw, err := net.DialTimeout("tcp", p.server.imap.Addr().String(), patience)
	if err != nil {
		return err
	}
	header := &proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	if _, err := header.WriteTo(raw); err != nil {
		return errors.Join(err, raw.Close())
	}
	c := imapclient.New(raw, nil)
	if err := c.Login(login, password).Wait(); err != nil {
		return errors.Join(err, c.Close())
	}
	box, err := c.Select("INBOX", nil).Wait()
	if err != nil {
		return errors.Join(err, c.Close())
	}
	if box.NumMessages > 0 {
		var all imap.SeqSet
		all.AddRange(1, box.NumMessages)
		p.messages, err = c.Fetch(all, &imap.FetchOptions{UID: true, RFC822Size: true}).Collect()
		if err != nil {
			return errors.Join(err, c.Close())
		}
	}
	p.inbox = c
	return nil
}

// transaction carries out what is possible after the login.
func (p *demoPOP3) transaction(verb string, args []string) {
	switch verb {
	case "STAT":
		n, size := 0, int64(0)
		for i, m := range p.messages {
			if !p.deleted[i] {
				n, size = n+1, size+m.RFC822Size
			}
		}
		p.say(fmt.Sprintf("+OK %d %d", n, size))
	case "LIST":
		p.list(args, func(i int) string { return strconv.FormatInt(p.messages[i].RFC822Size, 10) })
	case "UIDL":
		p.list(args, func(i int) string { return fmt.Sprintf("demo-%d", p.messages[i].UID) })
	case "RSET":
		clear(p.deleted)
		p.say("+OK")
	case "RETR", "TOP", "DELE":
		i, err := p.number(args)
		if err != nil {
			p.say("-ERR " + err.Error())
			return
		}
		if verb == "DELE" {
			p.deleted[i] = true
			p.say("+OK")
			return
		}
		p.retrieve(i, verb, args)
	default:
		p.say("-ERR unknown command")
	}
}

// number gives the message that is meant, counted from 0.
func (p *demoPOP3) number(args []string) (int, error) {
	if len(args) == 0 {
		return 0, errors.New("name a message")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 || n > len(p.messages) || p.deleted[n-1] {
		return 0, errors.New("no such message")
	}
	return n - 1, nil
}

// list answers LIST and UIDL, for one message or all.
func (p *demoPOP3) list(args []string, value func(i int) string) {
	if len(args) > 0 {
		i, err := p.number(args)
		if err != nil {
			p.say("-ERR " + err.Error())
			return
		}
		p.say(fmt.Sprintf("+OK %d %s", i+1, value(i)))
		return
	}
	p.say("+OK")
	for i := range p.messages {
		if !p.deleted[i] {
			p.say(fmt.Sprintf("%d %s", i+1, value(i)))
		}
	}
	p.say(".")
}

// retrieve gives a message, of which TOP wants the header and some lines.
func (p *demoPOP3) retrieve(i int, verb string, args []string) {
	section := &imap.FetchItemBodySection{Peek: true}
	found, err := p.inbox.Fetch(imap.UIDSetNum(p.messages[i].UID), &imap.FetchOptions{
		UID: true, BodySection: []*imap.FetchItemBodySection{section},
	}).Collect()
	if err != nil || len(found) != 1 {
		p.say("-ERR [SYS/TEMP] the message cannot be read")
		return
	}
	text := found[0].FindBodySection(section)
	left := -1
	if verb == "TOP" {
		if len(args) < 2 {
			p.say("-ERR how many lines?")
			return
		}
		if left, err = strconv.Atoi(args[1]); err != nil || left < 0 {
			p.say("-ERR how many lines?")
			return
		}
	}
	p.say("+OK")
	p.writeMessage(text, left)
}

// writeMessage writes a message, its dots doubled at the beginning of lines
// (RFC 1939 3), and of its body at most the given number of lines.
func (p *demoPOP3) writeMessage(text []byte, left int) {
	w := bufio.NewWriter(p)
	body := false
	for line := range bytes.Lines(text) {
		if body && left == 0 {
			break
		}
		if body && left > 0 {
			left--
		}
		line = bytes.TrimRight(line, "\r\n")
		body = body || len(line) == 0
		if bytes.HasPrefix(line, []byte(".")) {
			w.WriteByte('.')
		}
		w.Write(line)
		w.WriteString("\r\n")
	}
	w.WriteString(".\r\n")
	_ = w.Flush() // as say
}

// quit removes what was deleted and says goodbye.
func (p *demoPOP3) quit() {
	if p.inbox == nil || len(p.deleted) == 0 {
		p.say("+OK bye")
		return
	}
	var gone imap.UIDSet
	for i := range p.deleted {
		gone.AddNum(p.messages[i].UID)
	}
	err := p.inbox.Store(gone, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close()
	if err == nil {
		err = p.inbox.Expunge().Close()
	}
	if err != nil {
		p.say("-ERR [SYS/TEMP] not everything was deleted")
		return
	}
	p.say("+OK bye")
}
