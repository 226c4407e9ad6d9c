package integration

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// Without descriptors nothing crashes and nothing hangs: who is in stays in,
// and once there are some again everybody is served.
func TestAttackDescriptors(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, "imap", nil)
	cfg := testbed.InFront("imap", "none", r.port, nil)
	cfg.Listeners[0].PlaintextAuth = "yes"
	cfg.Limits = map[string]any{"connections-per-address": 1000}
	p := bed.NewProxy(t, cfg)
	inside := mustLogin(t, p.Guess("imap", "127.77.0.1", "alice", "right-"+bed.Secrets.New("inside")))
	usual := p.Files()
	p.LimitFiles(usual + 20)
	var open []net.Conn
	for range 60 {
		conn, err := testbed.Dial("127.77.0.2", p.Port("imap"))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	testbed.Eventually(t, "the log to say so", func() bool { return len(p.Log.Lines("connections cannot be accepted")) > 0 })
	if line, err := inside.IMAP("x", "NOOP"); err != nil {
		t.Errorf("who is in: %q, %v", line, err)
	}
	if n := len(p.Log.Lines("connections cannot be accepted")); n > 2 {
		t.Errorf("the log says it %d times", n)
	}
	for _, conn := range open {
		conn.Close()
	}
	testbed.Eventually(t, "a new client to be served", func() bool {
		conn, err := p.Guess("imap", "127.77.0.3", "", "").Open()
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	p.LimitFiles(20000)
}

// Clients that begin a handshake and leave it there, or never begin, hold up
// nobody: the places for handshakes are for those under way, and end.
func TestAttackHandshakes(t *testing.T) {
	t.Parallel()
	cfg := testbed.InFront("imap", "implicit", bed.Dovecot.IMAPProxy, map[string]any{"loitering": "8/1d"})
	cfg.Limits = map[string]any{"handshakes": 4, "connections-per-address": 1000}
	// Long enough for an honest handshake on a machine that is busy.
	cfg.Timeouts = map[string]any{"handshake": "3s"}
	p := bed.NewProxy(t, cfg)
	user := bed.Users[45]
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		together(20, func(i int) {
			for !stop.Load() {
				conn, err := testbed.Dial("127.77.1.1", p.Port("imap"))
				if err != nil {
					continue // banned by now, it may be
				}
				if i%2 == 0 {
					_, _ = conn.Write([]byte{0x16, 3, 1, 2, 0, 1})
				}
				conn.Patience = 10 * time.Second // the wait for a place, and the handshake
				_, _ = conn.Rest()
				conn.Close()
			}
		})
	}()
	mustBan(t, p, "127.77.1.1") // for loitering
	begun := time.Now()
	answer, text, conn := p.Guess("imap", "127.77.1.2", user.Login, user.Password).Try()
	if answer != testbed.Accepted {
		t.Errorf("an honest client: %v %q after %v", answer, text, time.Since(begun))
	} else {
		conn.Close()
	}
	stop.Store(true)
	<-done
}

// A header that comes in halves, slowly or never holds up only its own
// connection, and scores nobody.
func TestAttackSlowHeaders(t *testing.T) {
	t.Parallel()
	p := behindBalancer(t, map[string]any{"abuse": "1/1d", "loitering": "1/1d"})
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
	var open []*testbed.Conn
	for _, half := range []string{"", "P", "PROXY TCP4 198.51.100.1 ", v2[:13], v2, v2 + "\xc6\x33\x64"} {
		for range 10 {
			conn, err := testbed.Dial(balancer, p.Port("imaps"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte(half)); err != nil {
				t.Fatal(err)
			}
			open = append(open, conn)
		}
	}
	user := bed.Users[44]
	answer, err := loginThrough(sendHeader(t, balancer, "198.51.100.77", p.Port("imaps"), 2), user, user.Password)
	if answer != testbed.Accepted {
		t.Errorf("an honest client behind the balancer: %v, %v", answer, err)
	}
	for _, conn := range open {
		if said, err := conn.Rest(); err != nil || said != "" {
			t.Errorf("half a header: %q, %v", said, err)
		}
	}
	if bans := p.Bans(); len(bans) > 0 {
		t.Errorf("bans: %v", bans)
	}
}

// Clients that stop reading, or sending, in the middle of everything do not
// slow down others, nor fill the memory with what waits for them.
func TestAttackHalfOpenPeers(t *testing.T) {
	t.Parallel()
	flood := make([]byte, 1<<16)
	for i := range flood {
		flood[i] = "0123456789abcdef\r\n"[i%18]
	}
	r := newRecorder(t, "imap", func(c *recorded, line string) string {
		if c.from == "127.78.0.1" && len(line) > 2 && line[2:] == "FETCH" {
			for {
				if _, err := c.Write(append([]byte("* OK "), flood...)); err != nil {
					return ""
				}
			}
		}
		return "usual"
	})
	p := behindRecorder(t, r, "imap", nil)
	var open []*testbed.Conn
	for n := range 20 {
		conn := mustLogin(t, p.Guess("imap", "127.78.0.1", "alice", "right-"+bed.Secrets.New(fmt.Sprintf("half%d", n))))
		open = append(open, conn)
	}
	before := p.RSS()
	for _, conn := range open {
		if err := conn.Send("x FETCH"); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 { // they read nothing; these do
		conn := mustLogin(t, p.Guess("imap", "127.78.0.2", "bob", "right-"+bed.Secrets.New("reader")))
		if line, err := conn.IMAP("x", "NOOP"); err != nil {
			t.Fatalf("%q, %v", line, err)
		}
		conn.Close()
	}
	if grown := p.RSS() - before; grown > 64<<20 {
		t.Errorf("%d MiB more than before", grown>>20)
	}
}
