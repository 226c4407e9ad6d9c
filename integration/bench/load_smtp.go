package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
)

// textLine is what people write: a dot at the end of each sentence.
var textLine = []byte("The quick brown fox jumps over the lazy dog while the postman is on his way.\r\n")

const mailHead = "From: <a@example.test>\r\nTo: <b@example.test>\r\nSubject: bench\r\n"

// text is a message of about size bytes, with the end of data, that somebody
// has typed.
func text(size int) []byte {
	m := []byte(mailHead + "\r\n")
	m = append(m, bytes.Repeat(textLine, max(1, (size-len(m))/len(textLine)))...)
	return append(m, ".\r\n"...)
}

// attachment is a message as long messages are: some lines of text, and a file
// in base64 lines of 76 characters (RFC 2045 section 6.8), which hold no dot.
func attachment(size int) []byte {
	m := []byte(mailHead + "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n")
	m = append(m, bytes.Repeat(textLine, 20)...)
	m = append(m, "--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"...)
	file := rand.NewChaCha8([32]byte{})
	for octets := [57]byte{}; len(m) < size; {
		_, _ = file.Read(octets[:]) // which never fails
		m = append(base64.StdEncoding.AppendEncode(m, octets[:]), "\r\n"...)
	}
	return append(m, "--b--\r\n.\r\n"...)
}

// sendMail returns a worker that sends a message again and again; with one it
// connects anew for each. The first envelope of a connection goes step by
// step, further ones pipelined, as Postfix does.
func sendMail(message []byte, secure *tls.Config, one bool) worker {
	return func(ctx context.Context, id int, addr string, t *tally) error {
		for n := 0; !t.stop.Load(); n++ {
			if err := mailConnection(ctx, id+n*101, addr, secure, message, one, t); err != nil {
				return err
			}
		}
		return nil
	}
}

func mailConnection(ctx context.Context, from int, addr string, secure *tls.Config, body []byte, one bool, t *tally) error {
	c, err := dial(ctx, addr, source(from), secure)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.reply('2'); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if err := c.ask("EHLO client.example.test\r\n", "2"); err != nil {
		return err
	}
	const mail, rcpt, data = "MAIL FROM:<a@example.test>\r\n", "RCPT TO:<b@example.test>\r\n", "DATA\r\n"
	for i := 0; i == 0 || !t.stop.Load() && !one; i++ {
		if i > 0 {
			err = c.ask(mail+rcpt+data, "223")
		} else if err = c.ask(mail, "2"); err == nil {
			if err = c.ask(rcpt, "2"); err == nil {
				err = c.ask(data, "3")
			}
		}
		if err != nil {
			return err
		}
		// next has flushed everything before.
		if _, err := c.c.Write(body); err != nil {
			return err
		}
		if err := c.reply('2'); err != nil {
			return fmt.Errorf("end of data: %w", err)
		}
		t.ops.Add(1)
		t.bytes.Add(int64(len(body)))
	}
	return c.ask("QUIT\r\n", "2")
}

// ask writes commands and reads a reply to each, whose codes begin with the
// digits of want.
func (c *client) ask(commands, want string) error {
	if err := c.write(commands); err != nil {
		return err
	}
	for _, digit := range []byte(want) {
		if err := c.reply(digit); err != nil {
			return fmt.Errorf("%.4s: %w", commands, err)
		}
	}
	return nil
}

// reply reads one reply of one or more lines.
func (c *client) reply(digit byte) error {
	for {
		line, err := c.next()
		if err != nil {
			return err
		}
		if len(line) < 3 || line[0] != digit {
			return fmt.Errorf("unexpected reply %q", line)
		}
		if len(line) == 3 || line[3] != '-' {
			return nil
		}
	}
}
