package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"mailreeve/guard"
)

// The demo's show: a message from Bob to Alice, an attack on Alice's password,
// and Alice fetching her mail as if nothing had happened.

// Where the demo's attack comes from and how hard it tries.
const (
	attackerAddress = "127.0.0.66"
	attackers       = 40
	// patience bounds each dialogue of the show, knock the wait for a
	// connection: the kernel filter lets a banned address wait for ever.
	patience = 20 * time.Second
	knock    = 2 * time.Second
)

// show plays the three acts. It stops at the first that does not go as it
// must, for then there is nothing to show.
func (d *demo) show(ctx context.Context) error {
	d.in.printf("\n--- Bob writes to Alice (submission, port 10465)\n")
	if err := d.send(ctx); err != nil {
		return fmt.Errorf("send a message: %w", err)
	}
	d.in.printf("    accepted\n")
	d.in.printf("\n--- %s guesses Alice's password, %d times at once (IMAP, port 10993)\n", attackerAddress, attackers)
	if err := d.attack(ctx); err != nil {
		return err
	}
	d.in.printf("\n--- Alice fetches her mail meanwhile (IMAP, port 10993)\n")
	subject, err := d.fetch(ctx)
	if err != nil {
		return fmt.Errorf("fetch the message: %w", err)
	}
	d.in.printf("    %s\n", subject)
	return nil
}

// A dialogue is a connection on which lines go back and forth.
type dialogue struct {
	net.Conn
	lines *bufio.Reader
}

// connect dials a port of the demo from an address of this machine, with TLS
// that trusts the demo's certificate.
func (d *demo) connect(ctx context.Context, from, to string) (*dialogue, error) {
	roots := x509.NewCertPool()
	cert, err := os.ReadFile(filepath.Join(d.dir, "cert.pem"))
	if err != nil {
		return nil, err
	}
	roots.AppendCertsFromPEM(cert)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: knock}
	raw, err := dialer.DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: "localhost"})
	if err := errors.Join(c.SetDeadline(time.Now().Add(patience)), c.HandshakeContext(ctx)); err != nil {
		c.Close()
		return nil, err
	}
	return &dialogue{c, bufio.NewReader(c)}, nil
}

// say sends a line and reads up to the reply's last, which is the first that
// begins with one of the given words.
func (c *dialogue) say(line string, last ...string) (string, error) {
	if line != "" {
		if _, err := io.WriteString(c, line+"\r\n"); err != nil {
			return "", err
		}
	}
	for {
		reply, err := c.lines.ReadString('\n')
		if err != nil {
			return "", err
		}
		reply = strings.TrimRight(reply, "\r\n")
		if slices.ContainsFunc(last, func(word string) bool { return strings.HasPrefix(reply, word) }) {
			return reply, nil
		}
	}
}

// send has Bob write to Alice.
func (d *demo) send(ctx context.Context) error {
	c, err := d.connect(ctx, "127.0.0.1", "127.0.0.1:10465")
	if err != nil {
		return err
	}
	defer c.Close()
	bob := demoUsers()[1]
	for _, step := range []struct{ line, want string }{
		{"", "220 "},
		{"EHLO demo.example.test", "250 "},
		{"AUTH PLAIN " + plainResponse(bob.login, bob.password), "235 "},
		{"MAIL FROM:<bob@example.test>", "250 "},
		{"RCPT TO:<alice@example.test>", "250 "},
		{"DATA", "354 "},
		{"From: bob@example.test\r\nTo: alice@example.test\r\nSubject: Hello from Bob\r\n\r\nIt works.\r\n.", "250 "},
		{"QUIT", "221 "},
	} {
		reply, err := c.say(step.line, step.want, "4", "5")
		if err != nil {
			return err
		}
		if !strings.HasPrefix(reply, step.want) {
			return fmt.Errorf("%s was answered %q", strings.SplitN(step.line, " ", 2)[0], reply)
		}
	}
	return nil
}

// fetch has Alice read the subject of her first message.
func (d *demo) fetch(ctx context.Context) (string, error) {
	c, err := d.connect(ctx, "127.0.0.1", "127.0.0.1:10993")
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.say("", "* OK"); err != nil {
		return "", err
	}
	alice := demoUsers()[0]
	for _, line := range []string{"LOGIN " + alice.login + " " + alice.password, "SELECT INBOX"} {
		reply, err := c.say("a "+line, "a ", "* BYE")
		if err != nil {
			return "", err
		}
		if !strings.HasPrefix(reply, "a OK") {
			return "", fmt.Errorf("%s was answered %q", strings.SplitN(line, " ", 2)[0], reply)
		}
	}
	return c.say("a FETCH 1 BODY[HEADER.FIELDS (SUBJECT)]", "Subject:", "a ")
}

// A guess is how one of the attack's guesses ended.
type guess int

const (
	guessAnswered guess = iota // the server's own refusal came back
	guessCut                   // the connection was ended with a last word
	guessDropped               // there was no connection, or it ended without a word
)

// attack sends wrong passwords over many connections at once, and shows what
// became of them and which ban fell.
func (d *demo) attack(ctx context.Context) error {
	before := d.server.guesses.Load()
	ends := make([]guess, attackers)
	errs := make([]error, attackers)
	var all sync.WaitGroup
	for i := range attackers {
		all.Go(func() { ends[i], errs[i] = d.guess(ctx, fmt.Sprintf("guess-%d", i)) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			d.in.printf("    this machine cannot send from %s; on macOS: sudo ifconfig lo0 alias %s\n", attackerAddress, attackerAddress)
			return nil
		}
		return fmt.Errorf("attack: %w", err)
	}
	tally := map[guess]int{}
	for _, end := range ends {
		tally[end]++
	}
	d.in.printf("    the server behind saw %d guesses; the limit is %d\n", d.server.guesses.Load()-before, demoGuesses)
	d.in.printf("    the attacker saw %d refusals: the one that led to the ban was kept from it,\n", tally[guessAnswered])
	d.in.printf("    as the ban stood before; %d connections were cut with a last word, %d without\n",
		tally[guessCut], tally[guessDropped])
	bans := d.daemon.guard.Bans(guard.BanFilter{})
	if len(bans) == 0 {
		return errors.New("attack: no ban fell, which it must")
	}
	d.in.printf("\n")
	d.in.showBans(bans)
	again, err := d.guess(ctx, "one-more")
	if err != nil {
		return fmt.Errorf("connect once more: %w", err)
	}
	if again != guessDropped {
		return errors.New("attack: the banned address was let in again, which it must not")
	}
	how := "dropped at accept, no byte sent"
	if d.daemon.proxy.Status().KernelFilter.State == "on" {
		how = "the kernel drops its packets, it does not even get a connection"
	}
	d.in.printf("\n    %s connects again: %s\n", attackerAddress, how)
	return nil
}

// guess tries one password for Alice from the attacker's address.
func (d *demo) guess(ctx context.Context, password string) (guess, error) {
	c, err := d.connect(ctx, attackerAddress, "127.0.0.1:10993")
	if err != nil {
		return droppedOr(err)
	}
	defer c.Close()
	if reply, err := c.say("", "* OK", "* BYE"); err != nil || strings.HasPrefix(reply, "* BYE") {
		return cutOr(reply, err)
	}
	reply, err := c.say("a LOGIN "+demoUsers()[0].login+" "+password, "a ", "* BYE")
	if err != nil || strings.HasPrefix(reply, "* BYE") {
		return cutOr(reply, err)
	}
	if strings.HasPrefix(reply, "a OK") {
		return guessAnswered, fmt.Errorf("the wrong password %q was accepted", password)
	}
	return guessAnswered, nil
}

func cutOr(reply string, err error) (guess, error) {
	if reply != "" {
		return guessCut, nil
	}
	return droppedOr(err)
}

// droppedOr tells the end of a banned connection from other errors. No answer
// at all is the kernel filter's way.
func droppedOr(err error) (guess, error) {
	var network *net.OpError
	if errors.As(err, &network) && network.Op == "dial" && network.Timeout() {
		return guessDropped, nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNREFUSED) {
		return guessDropped, nil
	}
	return guessDropped, err
}

// plainResponse is the initial response of SASL PLAIN (RFC 4616).
func plainResponse(login, password string) string {
	return base64.StdEncoding.EncodeToString(bytes.Join([][]byte{nil, []byte(login), []byte(password)}, []byte{0}))
}
