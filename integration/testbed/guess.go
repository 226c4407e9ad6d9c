package testbed

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Guess is one connection with one login.
type Guess struct {
	From     string // a loopback address
	Port     int
	Protocol string // as in the configuration; whatever it does not name is SMTP
	TLS      string // as in the configuration: "none", "starttls", "implicit"
	Login    string
	Password string
}

// An Answer is what became of a guess.
type Answer uint8

const (
	// Unanswered: the connection failed or ended before an answer.
	Unanswered Answer = iota
	// Accepted: the login is in.
	Accepted
	// Wrong: login or password was refused.
	Wrong
	// Later: a temporary refusal, which keeps a client from asking its user
	// for another password.
	Later
	// GoodBye: the last word of somebody who closes, other than Later.
	GoodBye
	// Other: anything else.
	Other
)

// String names the answer.
func (a Answer) String() string {
	return [...]string{"unanswered", "accepted", "wrong", "later", "good-bye", "other"}[a]
}

// loginPatience is how long an answer to a login is waited for: a guard may
// hold a login back for 30 s, until others are settled.
const loginPatience = 45 * time.Second

// Try makes the guess, and returns the connection if it was accepted. The text
// is what the answer was read from, or the error.
func (g Guess) Try() (Answer, string, *Conn) {
	conn, err := g.Open()
	var refused *refusedError
	if errors.As(err, &refused) {
		return Classify(g.Protocol, refused.line), refused.line, nil
	}
	if err != nil {
		return Unanswered, err.Error(), nil
	}
	conn.Patience = loginPatience
	line, err := g.login(conn)
	if err != nil {
		conn.Close()
		return Unanswered, err.Error(), nil
	}
	answer := Classify(g.Protocol, line)
	if answer != Accepted {
		conn.Close()
		return answer, line, nil
	}
	return answer, line, conn
}

func (g Guess) login(conn *Conn) (string, error) {
	switch g.Protocol {
	case "imap":
		return conn.IMAP("g1", "LOGIN %q %q", g.Login, g.Password)
	case "pop3":
		return g.loginPOP3(conn)
	case "managesieve":
		return conn.Sieve("AUTHENTICATE \"PLAIN\" %q", Plain(g.Login, g.Password))
	}
	return conn.SMTP("AUTH PLAIN %s", Plain(g.Login, g.Password))
}

// Answer makes the guess, closes the connection, and tells only what became of
// it.
func (g Guess) Answer() Answer {
	answer, _, conn := g.Try()
	if conn != nil {
		conn.Close()
	}
	return answer
}

// A refusedError is what a connection was told in place of a greeting, or of
// what an opening command is usually answered: over TLS, or where none is
// needed, EHLO is what dials the server.
type refusedError struct {
	command, line string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("%s is answered %q", e.command, e.line)
}

// refused tells of an answer, or of why there was none.
func refused(command, line string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return &refusedError{command, line}
}

// Open connects, secures the connection and says what comes before a login.
func (g Guess) Open() (*Conn, error) {
	conn, err := Dial(g.From, g.Port)
	if err != nil {
		return nil, err
	}
	if err := g.opening(conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (g Guess) opening(conn *Conn) error {
	if g.TLS == "implicit" {
		if err := conn.Handshake(AnyTLS()); err != nil {
			return err
		}
	}
	switch g.Protocol {
	case "imap":
		return g.openingIMAP(conn)
	case "pop3":
		return g.openingPOP3(conn)
	case "managesieve":
		return g.openingSieve(conn)
	}
	return g.openingSMTP(conn)
}

func (g Guess) openingIMAP(conn *Conn) error {
	if line, err := conn.Line(); err != nil || !strings.HasPrefix(line, "* OK") {
		return refused("the greeting", line, err)
	}
	if g.TLS != "starttls" {
		return nil
	}
	if line, err := conn.IMAP("g0", "STARTTLS"); err != nil || !strings.HasPrefix(line, "g0 OK") {
		return refused("STARTTLS", line, err)
	}
	return conn.Handshake(AnyTLS())
}

func (g Guess) openingSMTP(conn *Conn) error {
	if line, err := conn.Reply(); err != nil || !strings.HasPrefix(line, "220") {
		return refused("the greeting", line, err)
	}
	if g.TLS == "starttls" {
		for _, command := range []string{"EHLO client.example.test", "STARTTLS"} {
			if line, err := conn.SMTP("%s", command); err != nil || line[0] != '2' {
				return refused(command, line, err)
			}
		}
		if err := conn.Handshake(AnyTLS()); err != nil {
			return err
		}
	}
	if line, err := conn.SMTP("EHLO client.example.test"); err != nil || line[0] != '2' {
		return refused("EHLO", line, err)
	}
	return nil
}

// Classify reads an answer to a login.
func Classify(protocol, line string) Answer {
	switch protocol {
	case "imap":
		return classifyIMAP(line)
	case "pop3":
		return classifyPOP3(line)
	case "managesieve":
		return classifySieve(line)
	}
	switch {
	case strings.HasPrefix(line, "235"):
		return Accepted
	case strings.HasPrefix(line, "535"):
		return Wrong
	case strings.HasPrefix(line, "421"):
		return GoodBye
	case strings.HasPrefix(line, "4"):
		return Later
	}
	return Other
}

func classifyIMAP(line string) Answer {
	status, rest := "", ""
	if fields := strings.SplitN(line, " ", 3); len(fields) == 3 {
		status, rest = fields[1], fields[2]
	}
	temporary := strings.HasPrefix(rest, "[UNAVAILABLE]")
	switch {
	case status == "OK":
		return Accepted
	case status == "NO" && strings.HasPrefix(rest, "[AUTHENTICATIONFAILED]"):
		return Wrong
	case (status == "NO" || status == "BYE") && temporary:
		return Later
	case status == "BYE":
		return GoodBye
	}
	return Other
}
