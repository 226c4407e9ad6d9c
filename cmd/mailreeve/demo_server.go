package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/pires/go-proxyproto"
)

// demoDomain is the only domain the demo's server has mailboxes in.
const demoDomain = "example.test"

// A demoUser is a mailbox of the demo's server.
type demoUser struct {
	login, password string
}

// demoUsers are printed for everyone to try; their passwords are no secret.
func demoUsers() []demoUser {
	return []demoUser{
		{"alice@" + demoDomain, "alice-pw"},
		{"bob@" + demoDomain, "bob-pw"},
	}
}

// maxDemoMessage bounds a message, for the mailboxes are in memory.
const maxDemoMessage = 25 << 20

// A demoServer is the mail server behind the demo's proxy: it takes mail over
// SMTP, gives it out over IMAP and POP3, and keeps Sieve scripts, all in
// memory. Its ports are on loopback and want a PROXY v2 header, as Postfix and
// Dovecot behind mailreeve do; who comes without one is turned away.
type demoServer struct {
	mx, submission, imap, pop3, sieve net.Listener

	passwords map[string]string
	mailboxes map[string]*imapmemserver.User
	scripts   demoScripts

	// guesses counts the wrong passwords that came through to this server.
	guesses atomic.Int64

	close []func() error
	done  chan error
}

// newDemoServer listens on ports that the system chooses, and serves.
func newDemoServer(log *slog.Logger) (*demoServer, error) {
	s := &demoServer{
		passwords: map[string]string{},
		mailboxes: map[string]*imapmemserver.User{},
		scripts:   demoScripts{texts: map[string]map[string]string{}, active: map[string]string{}},
		done:      make(chan error, 5),
	}
	store := imapmemserver.New()
	for _, u := range demoUsers() {
		mailbox := imapmemserver.NewUser(u.login, u.password)
		if err := mailbox.Create("INBOX", nil); err != nil {
			return nil, fmt.Errorf("create the mailbox of %s: %w", u.login, err)
		}
		store.AddUser(mailbox)
		s.passwords[u.login], s.mailboxes[u.login] = u.password, mailbox
	}
	for _, l := range []*net.Listener{&s.mx, &s.submission, &s.imap, &s.pop3, &s.sieve} {
		var err error
		if *l, err = listenForProxy(); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.close = append(s.close, (*l).Close)
	}
	quiet := slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	s.serveSMTP(s.mx, quiet, false)
	s.serveSMTP(s.submission, quiet, true)
	s.serveIMAP(s.imap, quiet, store)
	s.servePOP3(s.pop3)
	s.serveSieve(s.sieve)
	return s, nil
}

// listenForProxy listens on loopback for connections that start with a PROXY
// header.
func listenForProxy() (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the demo's mail server: %w", err)
	}
	require := func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil }
	return &proxyproto.Listener{Listener: l, ConnPolicy: require, ReadHeaderTimeout: 5 * time.Second}, nil
}

// Close ends the server and its connections.
func (s *demoServer) Close() error {
	var errs []error
	for _, end := range s.close {
		if err := end(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *demoServer) serveSMTP(l net.Listener, quiet smtp.Logger, login bool) {
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		session := &demoSession{server: s}
		if login {
			return &demoSubmission{demoSession: session}, nil
		}
		return session, nil
	}))
	server.Domain = "mx." + demoDomain
	server.MaxMessageBytes = maxDemoMessage
	server.MaxRecipients = 50
	server.EnableSMTPUTF8 = true
	server.AllowInsecureAuth = true // TLS ends at the proxy.
	server.ErrorLog = quiet
	s.close = append(s.close, server.Close)
	go s.serve(func() error { return server.Serve(l) })
}

func (s *demoServer) serveIMAP(l net.Listener, quiet imapserver.Logger, store *imapmemserver.Server) {
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			session := store.NewSession().(imapserver.SessionIMAP4rev2)
			return &demoMailboxes{session, s}, nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}},
		InsecureAuth: true, // TLS ends at the proxy.
		Logger:       quiet,
	})
	s.close = append(s.close, server.Close)
	go s.serve(func() error { return server.Serve(l) })
}

// serve runs one of the servers and keeps how it ended.
func (s *demoServer) serve(run func() error) {
	s.done <- run()
}

// serveEach serves every connection of a listener, until it is closed; its
// connections then end as well.
func (s *demoServer) serveEach(l net.Listener, one func(net.Conn)) {
	var (
		mu     sync.Mutex
		closed bool
		open   = map[net.Conn]bool{}
		all    sync.WaitGroup
	)
	s.close = append(s.close, func() error {
		mu.Lock()
		closed = true
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
		return nil
	})
	go s.serve(func() error {
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			mu.Lock()
			if closed {
				c.Close()
				mu.Unlock()
				continue
			}
			open[c] = true
			all.Go(func() {
				one(c)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
			mu.Unlock()
		}
	})
}

// right tells whether the password is the login's, and counts those that are
// not.
func (s *demoServer) right(login, password string) bool {
	want, known := s.passwords[login]
	if !known || password != want {
		s.guesses.Add(1)
		return false
	}
	return true
}

// demoMailboxes is an IMAP session that counts wrong passwords.
type demoMailboxes struct {
	imapserver.SessionIMAP4rev2
	server *demoServer
}

// Login opens the login's mailboxes.
func (m *demoMailboxes) Login(login, password string) error {
	if !m.server.right(login, password) {
		return imapserver.ErrAuthFailed
	}
	return m.SessionIMAP4rev2.Login(login, password)
}

// demoSession is an SMTP session on the port for mail from outside.
type demoSession struct {
	server     *demoServer
	recipients []*imapmemserver.User
}

func (d *demoSession) Mail(string, *smtp.MailOptions) error { return nil }
func (d *demoSession) Reset()                               { d.recipients = nil }
func (d *demoSession) Logout() error                        { return nil }

// Rcpt takes the users' addresses and refuses others in Postfix's words, which
// tell an unknown user from an attempt to relay.
func (d *demoSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	to = strings.ToLower(to)
	mailbox, known := d.server.mailboxes[to]
	switch {
	case known:
		d.recipients = append(d.recipients, mailbox)
		return nil
	case strings.HasSuffix(to, "@"+demoDomain):
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1},
			Message: "<" + to + ">: Recipient address rejected: User unknown in virtual mailbox table"}
	}
	return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1},
		Message: "<" + to + ">: Relay access denied"}
}

// Data delivers to the inboxes.
func (d *demoSession) Data(r io.Reader) error {
	message, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	for _, mailbox := range d.recipients {
		literal := demoLiteral{bytes.NewReader(message)}
		if _, err := mailbox.Append("INBOX", literal, &imap.AppendOptions{Time: time.Now()}); err != nil {
			return err
		}
	}
	return nil
}

// demoLiteral is a message as imapmemserver wants it.
type demoLiteral struct{ *bytes.Reader }

// Size is the message's length in bytes.
func (l demoLiteral) Size() int64 { return l.Reader.Size() }

// demoSubmission is an SMTP session on the submission port: nothing goes
// without a login.
type demoSubmission struct {
	*demoSession
	loggedIn bool
}

func (d *demoSubmission) AuthMechanisms() []string { return []string{sasl.Plain} }

func (d *demoSubmission) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, login, password string) error {
		if !d.server.right(login, password) {
			return smtp.ErrAuthFailed
		}
		d.loggedIn = true
		return nil
	}), nil
}

// Mail begins a message, for those who have logged in.
func (d *demoSubmission) Mail(from string, options *smtp.MailOptions) error {
	if !d.loggedIn {
		return &smtp.SMTPError{Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}, Message: "Authentication required"}
	}
	return d.demoSession.Mail(from, options)
}
