package integration

import (
	"fmt"
	"net"
	"testing"

	"mailreeve/integration/testbed"
)

// A listener without a host serves IPv4 and IPv6; the server is told which
// address the client has, and a ban holds for either.
func TestBothFamiliesAreServed(t *testing.T) {
	t.Parallel()
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("this machine has no IPv6: %v", err)
	} else {
		l.Close()
	}
	cfg := testbed.InFront("imap", "implicit", bed.Dovecot.IMAPProxy, map[string]any{"authentication": "3/1h"})
	cfg.Listeners[0].Address = fmt.Sprintf(":%d", testbed.FreePort(t))
	p := bed.NewProxy(t, cfg)
	user := bed.Users[26]
	mustLogin(t, p.Guess("imap", "127.47.0.1", user.Login, user.Password))
	bed.Dovecot.Log.Await(t, `Login: user=<`+user.Login+`>.*rip=127\.47\.0\.1,`)
	// No login succeeds from ::1, or its ban would be a soft one, which
	// greets.
	for i := range 3 {
		p.Guess("imap", "::1", user.Login, bed.Secrets.New(fmt.Sprintf("six%d", i))).Answer()
	}
	bed.Dovecot.Log.Await(t, failedLogin("::1"))
	testbed.Eventually(t, "a ban", func() bool { return len(p.Bans()) == 1 })
	if !dropped(t, "::1", p.Port("imap")) {
		t.Error("the banned IPv6 address gets in")
	}
	if dropped(t, "127.47.0.1", p.Port("imap")) {
		t.Error("the IPv4 address is banned for it")
	}
}
