package testbed

import "strings"

// openingPOP3 reads the greeting and starts TLS.
func (g Guess) openingPOP3(conn *Conn) error {
	if line, err := conn.Line(); err != nil || !strings.HasPrefix(line, "+OK") {
		return refused("the greeting", line, err)
	}
	if g.TLS != "starttls" {
		return nil
	}
	if line, err := conn.POP3("STLS"); err != nil || !strings.HasPrefix(line, "+OK") {
		return refused("STLS", line, err)
	}
	return conn.Handshake(AnyTLS())
}

// openingSieve reads the capabilities, starts TLS and reads those that follow
// it (RFC 5804 section 2.2).
func (g Guess) openingSieve(conn *Conn) error {
	if line, err := conn.SieveReply(); err != nil || !strings.HasPrefix(line, "OK") {
		return refused("the greeting", line, err)
	}
	if g.TLS != "starttls" {
		return nil
	}
	if line, err := conn.Sieve("STARTTLS"); err != nil || !strings.HasPrefix(line, "OK") {
		return refused("STARTTLS", line, err)
	}
	if err := conn.Handshake(AnyTLS()); err != nil {
		return err
	}
	line, err := conn.SieveReply()
	if err != nil || !strings.HasPrefix(line, "OK") {
		return refused("the handshake", line, err)
	}
	return nil
}

// loginPOP3 logs in with USER and PASS; what USER is answered matters only if
// it is a refusal.
func (g Guess) loginPOP3(conn *Conn) (string, error) {
	line, err := conn.POP3("USER %s", g.Login)
	if err != nil || !strings.HasPrefix(line, "+OK") {
		return line, err
	}
	return conn.POP3("PASS %s", g.Password)
}

// POP3 sends a command and reads the first line of its reply.
func (c *Conn) POP3(format string, args ...any) (string, error) {
	if err := c.Send(format, args...); err != nil {
		return "", err
	}
	return c.Line()
}

// Sieve sends a ManageSieve command and reads up to its result.
func (c *Conn) Sieve(format string, args ...any) (string, error) {
	if err := c.Send(format, args...); err != nil {
		return "", err
	}
	return c.SieveReply()
}

// SieveReply reads lines up to OK, NO or BYE, and returns that one.
func (c *Conn) SieveReply() (string, error) {
	for {
		line, err := c.Line()
		if err != nil {
			return "", err
		}
		word, _, _ := strings.Cut(line, " ")
		if word == "OK" || word == "NO" || word == "BYE" {
			return line, nil
		}
	}
}

func classifyPOP3(line string) Answer {
	switch {
	case strings.HasPrefix(line, "+OK"):
		return Accepted
	case strings.HasPrefix(line, "-ERR [SYS/"), strings.HasPrefix(line, "-ERR [IN-USE]"):
		return Later
	case strings.HasPrefix(line, "-ERR [AUTH]"):
		return Wrong
	}
	return Other
}

func classifySieve(line string) Answer {
	word, rest, _ := strings.Cut(line, " ")
	temporary := strings.HasPrefix(rest, "(TRYLATER)")
	switch {
	case word == "OK":
		return Accepted
	case temporary:
		return Later
	case word == "BYE":
		return GoodBye
	case strings.HasPrefix(rest, `"Authentication failed`):
		return Wrong
	}
	return Other
}
