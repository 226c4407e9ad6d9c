package integration

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// together runs f(0) … f(n-1) at the same moment and waits for all.
func together(n int, f func(i int)) {
	var wait sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wait.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wait.Wait()
}

// tally counts answers.
type tally struct {
	mu    sync.Mutex
	count map[testbed.Answer]int
	texts map[testbed.Answer]string // one example of each
}

func (c *tally) add(a testbed.Answer, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == nil {
		c.count, c.texts = map[testbed.Answer]int{}, map[testbed.Answer]string{}
	}
	c.count[a]++
	c.texts[a] = text
}

// try makes a guess, counts its answer and closes the connection.
func (c *tally) try(g testbed.Guess) testbed.Answer {
	answer, text, conn := g.Try()
	if conn != nil {
		conn.Close()
	}
	c.add(answer, text)
	return answer
}

func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var s string
	for a, n := range c.count {
		s += fmt.Sprintf("%d %s (%q) ", n, a, c.texts[a])
	}
	return s
}

// dropPatience is how long a connection that should be dropped may stay open.
const dropPatience = 5 * time.Second

// dropped tells whether a connection is ended without a byte, or not even begun.
func dropped(t *testing.T, from string, port int) bool {
	t.Helper()
	if testbed.KernelFilter() != "off" {
		if unheard, err := testbed.Unheard(from, port); err != nil {
			t.Fatal(err)
		} else if unheard {
			return true
		}
	}
	conn, err := testbed.Dial(from, port)
	if err != nil {
		return true // reset before connect returned
	}
	defer conn.Close()
	conn.Patience = dropPatience
	said, err := conn.Rest()
	return err == nil && said == ""
}

// mustOpen connects, secures the connection and reads the greeting.
func mustOpen(t *testing.T, g testbed.Guess) *testbed.Conn {
	t.Helper()
	conn, err := g.Open()
	if err != nil {
		t.Fatalf("open a connection from %s: %v", g.From, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// mustLogin logs in.
func mustLogin(t *testing.T, g testbed.Guess) *testbed.Conn {
	t.Helper()
	answer, text, conn := g.Try()
	if answer != testbed.Accepted {
		t.Fatalf("%s from %s: %v, %q; want accepted", g.Login, g.From, answer, text)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// mustBan waits until an address is banned.
func mustBan(t *testing.T, p *testbed.Proxy, address string) testbed.Ban {
	t.Helper()
	var ban testbed.Ban
	testbed.Eventually(t, "a ban of "+address, func() bool {
		b, ok := p.Banned(address)
		ban = b
		return ok
	})
	return ban
}
