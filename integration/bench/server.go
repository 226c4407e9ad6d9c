package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
)

// A backend says where a dummy server listens. The ports that end in Header
// want a PROXY header, v1 or v2; the TLS ports are for measuring without a
// proxy.
type backend struct {
	SMTP, SMTPHeader, SMTPS int
	IMAP, IMAPHeader, IMAPS int
}

func backendAt(base int) backend {
	return backend{base, base + 1, base + 2, base + 3, base + 4, base + 5}
}

// serverCounts is what a dummy server tells about itself.
type serverCounts struct {
	Open   int64 `json:"open"`   // connections now
	Wrong  int64 `json:"wrong"`  // wrong passwords that it answered
	Logins int64 `json:"logins"` // right ones
}

// A dummyServer is a mail server without mail: it accepts everything, as fast
// as it can, so that whatever stands in front of it is the bottleneck. It is
// no model of a server: it looks for the end of a message only where a message
// can end when the client waits for the reply, as ours does.
type dummyServer struct {
	open, wrong, logins atomic.Int64

	tls *tls.Config
}

// bulkSize is how many octets a FETCH gives.
const bulkSize = 4 << 20

// serveDummy is the program of a dummy server: "serve-dummy CERT KEY PORT...",
// told "counts" on its standard input as often as somebody wants to know.
func serveDummy(args []string, stdin io.Reader, stdout io.Writer) error {
	var certFile, keyFile string
	var base int
	if _, err := fmt.Sscan(strings.Join(args, " "), &certFile, &keyFile, &base); err != nil {
		return fmt.Errorf("serve-dummy: %w", err)
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return err
	}
	s := &dummyServer{tls: &tls.Config{
		Certificates: []tls.Certificate{cert}, DynamicRecordSizingDisabled: true,
	}}
	bulk := bytes.Repeat(textLine, bulkSize/len(textLine)+1)[:bulkSize]
	smtp := func(c net.Conn) error { return s.smtp(c) }
	imap := func(c net.Conn) error { return s.imap(c, bulk) }
	b := backendAt(base)
	for _, l := range []struct {
		port   int
		header bool
		tls    bool
		talk   func(net.Conn) error
	}{
		{b.SMTP, false, false, smtp}, {b.SMTPHeader, true, false, smtp}, {b.SMTPS, false, true, smtp},
		{b.IMAP, false, false, imap}, {b.IMAPHeader, true, false, imap}, {b.IMAPS, false, true, imap},
	} {
		listener, err := net.Listen("tcp", loopback(l.port))
		if err != nil {
			return err
		}
		go s.accept(listener, l.header, l.tls, l.talk)
	}
	fmt.Fprintln(stdout, "ready")
	for lines := bufio.NewScanner(stdin); lines.Scan(); {
		if err := json.NewEncoder(stdout).Encode(s.counts()); err != nil {
			return err
		}
	}
	return nil
}

func (s *dummyServer) counts() serverCounts {
	return serverCounts{s.open.Load(), s.wrong.Load(), s.logins.Load()}
}

// accept serves a listener until the process ends.
func (s *dummyServer) accept(l net.Listener, header, secure bool, talk func(net.Conn) error) {
	for {
		c, err := l.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "dummy server:", err)
			return
		}
		go s.serve(c, header, secure, talk)
	}
}

func (s *dummyServer) serve(c net.Conn, header, secure bool, talk func(net.Conn) error) {
	s.open.Add(1)
	defer s.open.Add(-1)
	defer c.Close()
	if header {
		if err := readProxyHeader(c); err != nil {
			fmt.Fprintln(os.Stderr, "dummy server:", err)
			return
		}
	}
	if secure {
		c = tls.Server(c, s.tls)
	}
	_ = talk(c) // The client hung up; that is how all of them end.
}

// readProxyHeader reads a header of either version, and nothing behind it. A
// byte at a time is dear, so only the first 12 bytes tell the two apart and
// only a v1 line is read byte by byte.
func readProxyHeader(c net.Conn) error {
	var head [16]byte
	if _, err := io.ReadFull(c, head[:12]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // A probe that only connects.
		}
		return fmt.Errorf("PROXY header: %w", err)
	}
	if string(head[:12]) == "\r\n\r\n\x00\r\nQUIT\n" {
		if _, err := io.ReadFull(c, head[12:]); err != nil {
			return fmt.Errorf("PROXY v2 header: %w", err)
		}
		rest := int64(head[14])<<8 | int64(head[15])
		_, err := io.CopyN(io.Discard, c, rest)
		return err
	}
	if !bytes.HasPrefix(head[:], []byte("PROXY ")) {
		return fmt.Errorf("PROXY header expected, got %q", head[:12])
	}
	one := make([]byte, 1)
	for n := 0; one[0] != '\n' && n < 107; n++ {
		if _, err := c.Read(one); err != nil {
			return fmt.Errorf("PROXY v1 header: %w", err)
		}
	}
	return nil
}

// smtp is one SMTP connection.
func (s *dummyServer) smtp(c net.Conn) error {
	l := newLines(c)
	if err := l.write("220 dummy.example.test ESMTP Postfix\r\n"); err != nil {
		return err
	}
	for {
		line, err := l.next()
		if err != nil {
			return err
		}
		verb := strings.ToUpper(string(line[:min(4, len(line))]))
		switch verb {
		case "EHLO":
			err = l.write("250-dummy.example.test\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n" +
				"250-AUTH PLAIN LOGIN\r\n250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n")
		case "AUTH":
			err = s.smtpAuth(l, line)
		case "DATA":
			if err = l.write("354 go on\r\n"); err == nil {
				err = l.data()
			}
			if err == nil {
				err = l.write("250 2.0.0 Ok: queued\r\n")
			}
		case "QUIT":
			return errors.Join(l.write("221 2.0.0 Bye\r\n"), l.flush())
		default:
			err = l.write("250 2.0.0 Ok\r\n")
		}
		if err != nil {
			return err
		}
	}
}

// smtpAuth takes AUTH PLAIN, with the password in the line or in the next one.
func (s *dummyServer) smtpAuth(l *lines, line []byte) error {
	if bytes.Count(line, []byte(" ")) < 2 {
		if err := l.write("334 \r\n"); err != nil {
			return err
		}
		if _, err := l.next(); err != nil {
			return err
		}
	}
	s.logins.Add(1)
	return l.write("235 2.7.0 Authentication successful\r\n")
}
