package testbed

import (
	"bufio"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

// A Script says what a fake server does. Its functions are called from many
// goroutines.
type Script struct {
	// Protocol is "smtp" or "imap".
	Protocol string
	// Greeting replaces the usual one.
	Greeting string
	// NoHeader: no PROXY header is expected.
	NoHeader bool
	// Host is the machine that it runs on, nil for this one.
	Host *Host
	// Late is how long after a login it is answered.
	Late time.Duration
	// Login gives the answer to a login: an SMTP reply, or an IMAP result
	// without its tag (with "* " in front it is sent untagged and the
	// connection ends). "" resets the connection. Without Login all passwords
	// are wrong.
	Login func(FakeLogin) string
	// Rcpt gives the reply to RCPT, "250 2.1.5 Ok" by default.
	Rcpt func(recipient string) string
	// End gives the reply to a whole message, "250 2.0.0 Ok" by default. It
	// may wait.
	End func() string
}

// A FakeLogin is a login that a fake server was sent.
type FakeLogin struct {
	From     string // the client's address, from the PROXY header
	Login    string
	Password string
}

// What fake servers say to logins.
const (
	SMTPWrong    = "535 5.7.8 Error: authentication failed: (reason unavailable)"
	SMTPAccepted = "235 2.7.0 Authentication successful"
	IMAPWrong    = "NO [AUTHENTICATIONFAILED] Authentication failed."
	IMAPAccepted = "OK [CAPABILITY IMAP4rev1 IDLE] Logged in"
)

// A Fake is a scripted server. It reads the PROXY header as strictly as Postfix
// and Dovecot: it must be there, whole, in the first segment.
type Fake struct {
	Port int

	script   Script
	listener net.Listener
	stopped  chan struct{}
	conns    sync.WaitGroup

	mu      sync.Mutex
	logins  []FakeLogin
	bad     []string             // what was wrong with PROXY headers
	open    map[*fakeConn]string // connections and their clients
	clients int                  // how many connections were for clients
	headers []*proxyproto.Header // the clients' headers
}

// NewFake starts a scripted server. It is stopped when the test is over, and
// the test fails if a connection came without a proper header.
func NewFake(t testing.TB, script Script) *Fake {
	t.Helper()
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	f := &Fake{Port: ports[0], script: script}
	f.Resume(t)
	t.Cleanup(func() {
		f.Suspend()
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, b := range f.bad {
			t.Errorf("fake server: %s", b)
		}
	})
	return f
}

// Resume listens again after Suspend.
func (f *Fake) Resume(t testing.TB) {
	t.Helper()
	listener, err := f.script.Host.Listen(loopback(f.Port))
	if err != nil {
		t.Fatal(err)
	}
	f.listener, f.stopped = listener, make(chan struct{})
	f.open = map[*fakeConn]string{}
	f.conns.Add(1)
	go f.accept()
}

// Suspend closes the listener and all connections, as a server that went down.
func (f *Fake) Suspend() {
	f.mu.Lock()
	select {
	case <-f.stopped:
		f.mu.Unlock()
		return
	default:
	}
	close(f.stopped)
	f.listener.Close()
	for c := range f.open {
		c.Close()
	}
	f.mu.Unlock()
	f.conns.Wait()
}

// Logins are all logins that it was sent.
func (f *Fake) Logins() []FakeLogin {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]FakeLogin(nil), f.logins...)
}

// Clients is how many connections were made for clients, not for probes.
func (f *Fake) Clients() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.clients
}

// Headers are the PROXY headers that came for clients.
func (f *Fake) Headers() []*proxyproto.Header {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*proxyproto.Header(nil), f.headers...)
}

// Open are the clients of the connections that are open.
func (f *Fake) Open() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var clients []string
	for _, client := range f.open {
		if client != "" {
			clients = append(clients, client)
		}
	}
	return clients
}

func (f *Fake) accept() {
	defer f.conns.Done()
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return
		}
		c := &fakeConn{Conn: conn, fake: f}
		f.mu.Lock()
		select {
		case <-f.stopped:
			conn.Close()
		default:
			f.open[c] = ""
			f.conns.Add(1)
			go c.serve()
		}
		f.mu.Unlock()
	}
}

// A fakeConn is one connection to a fake server.
type fakeConn struct {
	net.Conn
	fake *Fake
	r    *bufio.Reader
	from string
}

func (c *fakeConn) serve() {
	f := c.fake
	defer f.conns.Done()
	defer func() {
		c.Close()
		f.mu.Lock()
		delete(f.open, c)
		f.mu.Unlock()
	}()
	if !c.header() {
		return
	}
	if f.script.Protocol == "imap" {
		c.serveIMAP()
	} else {
		c.serveSMTP()
	}
}

// headerTime is how long Postfix waits for a header.
const headerTime = 5 * time.Second

// header reads the PROXY header in one read, as the real servers do.
func (c *fakeConn) header() bool {
	if c.fake.script.NoHeader {
		c.r = bufio.NewReader(c.Conn)
		c.arrived(c.RemoteAddr(), nil)
		return true
	}
	c.SetReadDeadline(time.Now().Add(headerTime))
	first := make([]byte, 1500)
	n, _ := c.Conn.Read(first)
	if n == 0 {
		return false // somebody looked whether the port is open
	}
	c.r = bufio.NewReader(&replay{first: first[:n], rest: c.Conn})
	header, err := proxyproto.Read(bufio.NewReader(strings.NewReader(string(first[:n]))))
	if err != nil {
		c.fake.complain("PROXY header: " + err.Error())
		return false
	}
	text, err := header.Format()
	if err != nil || header.Version == 2 && len(text) > 232 {
		c.fake.complain("PROXY header longer than 232 bytes, or not to be formatted again")
		return false
	}
	c.r.Discard(len(text))
	c.SetReadDeadline(time.Time{})
	if header.Command.IsProxy() {
		c.arrived(header.SourceAddr, header)
	}
	return true
}

// replay gives the first bytes again before the rest.
type replay struct {
	first []byte
	rest  net.Conn
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(p, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.rest.Read(p)
}

// probe is the address that mailreeve's own looks at a server come from.
const probe = "127.0.0.1"

// arrived notes who is served. A probe with a PROXY header from the proxy's own
// address is nobody's connection.
func (c *fakeConn) arrived(addr net.Addr, header *proxyproto.Header) {
	c.from = addr.(*net.TCPAddr).IP.String()
	if c.from == probe && !c.fake.script.NoHeader {
		return
	}
	c.fake.mu.Lock()
	defer c.fake.mu.Unlock()
	c.fake.clients++
	c.fake.open[c] = c.from
	if header != nil {
		c.fake.headers = append(c.fake.headers, header)
	}
}

func (f *Fake) complain(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bad = append(f.bad, what)
}

// judge notes a login and gives the script's answer to it, late if the script
// says so.
func (c *fakeConn) judge(login, password, wrong string) string {
	l := FakeLogin{c.from, login, password}
	c.fake.mu.Lock()
	c.fake.logins = append(c.fake.logins, l)
	c.fake.mu.Unlock()
	if late := c.fake.script.Late; late > 0 {
		timer := time.NewTimer(late)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.fake.stopped:
			return ""
		}
	}
	if c.fake.script.Login == nil {
		return wrong
	}
	return c.fake.script.Login(l)
}

func (c *fakeConn) say(line string) bool {
	_, err := c.Write([]byte(line + "\r\n"))
	return err == nil
}

func (c *fakeConn) line() (string, bool) {
	line, err := c.r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err == nil
}

// reset ends the connection with an RST.
func (c *fakeConn) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}
