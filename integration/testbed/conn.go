package testbed

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// A Conn is a client that speaks line by line. Its methods return errors, so
// that hundreds may run in goroutines. Every wait is bounded.
type Conn struct {
	net.Conn
	r *bufio.Reader
	// Patience is how long one line is waited for.
	Patience time.Duration
}

// Dial connects from a loopback address to a loopback port, of IPv6 if the
// address is.
func Dial(from string, port int) (*Conn, error) {
	source := net.ParseIP(from)
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: source}, Control: giveUpEarly}
	to := loopback(port)
	if source.To4() == nil {
		to = fmt.Sprintf("[::1]:%d", port)
	}
	conn, err := d.Dial("tcp", to)
	if err != nil {
		return nil, err
	}
	return NewConn(conn), nil
}

// NewConn wraps a connection.
func NewConn(conn net.Conn) *Conn {
	return &Conn{Conn: conn, r: bufio.NewReader(conn), Patience: patience}
}

// Handshake starts TLS. name is the server's name; certificates are not
// verified unless the configuration says so.
func (c *Conn) Handshake(cfg *tls.Config) error {
	if c.r.Buffered() > 0 {
		return errors.New("the server sent bytes behind its go-ahead for TLS")
	}
	conn := tls.Client(c.Conn, cfg)
	conn.SetDeadline(time.Now().Add(c.Patience))
	if err := conn.Handshake(); err != nil {
		return err
	}
	conn.SetDeadline(time.Time{})
	c.Conn, c.r = conn, bufio.NewReader(conn)
	return nil
}

// AnyTLS takes whatever certificate the server shows.
func AnyTLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true}
}

// Send writes one line; CRLF is added.
func (c *Conn) Send(format string, args ...any) error {
	c.SetWriteDeadline(time.Now().Add(c.Patience))
	_, err := fmt.Fprintf(c.Conn, format+"\r\n", args...)
	return err
}

// Line reads one line without its end.
func (c *Conn) Line() (string, error) {
	c.SetReadDeadline(time.Now().Add(c.Patience))
	line, err := c.r.ReadString('\n')
	if err != nil {
		if line != "" {
			err = fmt.Errorf("%w after %q", err, line)
		}
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// Reply reads an SMTP reply of one or more lines and returns them joined by
// newlines.
func (c *Conn) Reply() (string, error) {
	var lines []string
	for {
		line, err := c.Line()
		if err != nil {
			return strings.Join(lines, "\n"), err
		}
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// Tagged reads IMAP lines until the one with the tag, or until BYE, and
// returns that one.
func (c *Conn) Tagged(tag string) (string, error) {
	for {
		line, err := c.Line()
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(line, tag+" ") || strings.HasPrefix(line, "* BYE") {
			return line, nil
		}
	}
}

// SMTP sends a command and reads its reply.
func (c *Conn) SMTP(format string, args ...any) (string, error) {
	if err := c.Send(format, args...); err != nil {
		return "", err
	}
	return c.Reply()
}

// IMAP sends a command with a tag of its own and reads up to its result.
func (c *Conn) IMAP(tag, format string, args ...any) (string, error) {
	if err := c.Send(tag+" "+format, args...); err != nil {
		return "", err
	}
	return c.Tagged(tag)
}

// Rest reads until the other side ends the connection, gracefully or not, and
// returns what it said. The error is not nil only if it did not end in time.
func (c *Conn) Rest() (string, error) {
	c.SetReadDeadline(time.Now().Add(c.Patience))
	text, err := io.ReadAll(c.r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return string(text), fmt.Errorf("the connection was still open after %v", c.Patience)
	}
	return string(text), nil
}

// Plain is the initial response of AUTH PLAIN.
func Plain(login, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + login + "\x00" + password))
}
