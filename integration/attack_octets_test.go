package integration

import (
	"strings"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// A real Pigeonhole skips the line of a command that it cannot read and takes
// the octets of its literal for commands, a real Cyrus those of a literal8 where
// it looks for none. Whoever is logged in could so reach UNAUTHENTICATE, and
// guess from there on unseen.
func TestAttackCommandsInLiterals(t *testing.T) {
	t.Parallel()
	cyrus := bed.NewCyrus(t)
	imap := before(t, "imap", cyrus.IMAP, "none")
	sieve := bed.NewProxy(t, testbed.InFront("managesieve", "implicit", bed.Dovecot.SieveProxy, counting))
	awaitLogins(t, service{"imap", cyrus.IMAP, false})
	for _, c := range []struct {
		p                     *testbed.Proxy
		listener, line, octet string
	}{
		{sieve, "managesieve", "FOO {15+}", "HIDDENCOMMAND\r\n"},
		{sieve, "managesieve", "GETSCRIPT ( {15+}", "HIDDENCOMMAND\r\n"},
		{imap, "imap", "a SELECT ~{17+}", "HIDDENCOMMAND x\r\n"},
	} {
		conn := mustLogin(t, c.p.Guess(c.listener, "127.87.1.1", bed.Alice.Login, bed.Alice.Password))
		if _, err := conn.Write([]byte(c.line + "\r\n" + c.octet + "\r\n")); err != nil {
			t.Fatal(err)
		}
		conn.Patience = 2 * time.Second // the server may go on waiting
		if said, _ := conn.Rest(); strings.Contains(said, "HIDDENCOMMAND") || !strings.Contains(said, "Protocol violation") {
			t.Errorf("%s: the client was told %q", c.line, said)
		}
	}
}
