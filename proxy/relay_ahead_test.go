package proxy

import (
	"fmt"
	"testing"
)

// What a server said before a credential was sent is no answer to it, not even
// if it has not been looked at when the credential comes.
func TestAnAnswerAheadOfItsCredentialSettlesNothing(t *testing.T) {
	say := make(chan bool, 1)
	b := newBed(t, imapPlain, func(s *session) {
		fmt.Fprint(s, "* OK Dovecot ready.\r\n")
		s.expect("a CAPABILITY")
		<-say
		// The first line is edited, so it is written before the next is looked at.
		fmt.Fprint(s, "a OK [CAPABILITY IMAP4rev1 STARTTLS] done\r\nb OK come in\r\n")
		s.expect("b LOGIN")
		fmt.Fprint(s, "b NO [AUTHENTICATIONFAILED] no\r\n")
		s.rest()
	}, nil)
	client := b.sendsBehind("127.0.0.40", say, "b LOGIN alice wrong")
	client.expect("a OK")
	client.expect("b OK")
	client.expect("b NO")
	if n := b.points("127.0.0.40"); n != 1 {
		t.Errorf("%v points, want 1", n)
	}
}

// A line of which a server has said only the beginning keeps nobody waiting: the
// rest may come when it likes.
func TestHalfALineOfTheServerHoldsNothingUp(t *testing.T) {
	say := make(chan bool, 1)
	b := newBed(t, imapPlain, func(s *session) {
		fmt.Fprint(s, "* OK Dovecot ready.\r\n")
		s.expect("a CAPABILITY")
		<-say
		fmt.Fprint(s, "a OK [CAPABILITY IMAP4rev1 STARTTLS] done\r\n* OK half a")
		s.expect("b NOOP")
		fmt.Fprint(s, " line\r\nb OK\r\n")
		s.rest()
	}, nil)
	client := b.sendsBehind("127.0.0.41", say, "b NOOP")
	client.expect("a OK")
	client.expect("* OK half a line")
	client.expect("b OK")
}

// sendsBehind is a client whose second line is read while the answer to its
// first, which the server gives when it may say it, is still being written.
func (b *bed) sendsBehind(from string, say chan<- bool, line string) *client {
	b.t.Helper()
	client := b.dial(from)
	client.expect("* OK")
	client.send("a CAPABILITY")
	c := b.only()
	letGo := c.client.hold()
	say <- true
	b.waitFor("the write", func() bool { return c.client.writing.Load() != 0 })
	read := c.bytesIn.Load()
	client.send(line)
	b.waitFor("the line", func() bool { return c.bytesIn.Load() > read })
	letGo()
	return client
}

// hold has writes wait until they are let go.
func (e *end) hold() (letGo func()) {
	held, done := make(chan bool), make(chan bool)
	go func() {
		_ = e.tcp.raw.Write(func(uintptr) bool { // which are one at a time
			close(held)
			<-done
			return true
		})
	}()
	<-held
	return func() { close(done) }
}
