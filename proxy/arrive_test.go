package proxy

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"mailreeve/guard"
)

// A ban falls while its address keeps connecting. Whoever was being taken in at
// that moment is out again like the others: nobody has slipped through between
// being asked about and being found.
func TestNobodySlipsInWhileABanFalls(t *testing.T) {
	const rounds, dialers = 30, 4
	b := newBed(t, imapPlain, imap, func(c *Config, _ *guard.Config) { c.Limits.ConnectionsPerAddress = 9000 })
	for round := range rounds {
		from := fmt.Sprintf("127.0.60.%d", round+1)
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
		var dialling sync.WaitGroup
		var mu sync.Mutex
		var open []net.Conn
		stop, many := make(chan struct{}), make(chan struct{}, 1)
		for range dialers {
			dialling.Go(func() {
				for range 200 {
					select {
					case <-stop:
						return
					default:
					}
					c, err := d.Dial("tcp", b.addr())
					if err != nil {
						continue // reset as it came
					}
					mu.Lock()
					if open = append(open, c); len(open) == 30 {
						many <- struct{}{}
					}
					mu.Unlock()
				}
			})
		}
		<-many
		if _, err := b.guard.AddBan(guard.BanRequest{Target: from, For: guard.Duration(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		close(stop)
		dialling.Wait()
		b.waitFor(from+"'s connections to end", func() bool {
			return b.server.conns.count() == 0
		})
		for _, c := range open {
			c.Close()
		}
	}
}
