package proxy

import (
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// A dialogue in fuzzed bytes is pieces of the client and the server in turn: a
// byte whose lowest bit tells the side (1: the server) and whose other bits the
// size, then as many bytes.
func cutPieces(text []byte) (client, server [][]byte) {
	for len(text) > 0 {
		size := min(int(text[0]>>1), len(text)-1)
		piece := text[1 : 1+size]
		if text[0]&1 == 1 {
			server = append(server, piece)
		} else {
			client = append(client, piece)
		}
		text = text[1+size:]
	}
	return client, server
}

func pieces(parts ...string) (text []byte) {
	for i, part := range parts {
		text = append(append(text, byte(len(part)<<1|i&1)), part...)
	}
	return text
}

// A babbler is a server that says its pieces, one whenever it has heard
// something or waited for it, and then leaves.
type babbler struct {
	net.Listener
	mu   sync.Mutex
	says [][]byte
	all  sync.WaitGroup
}

func (b *babbler) serve() {
	defer b.all.Done()
	for {
		c, err := b.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		says := b.says
		b.mu.Unlock()
		b.all.Go(func() {
			defer c.Close()
			buf := make([]byte, 4096)
			for _, piece := range says {
				if _, err := c.Write(piece); err != nil {
					return
				}
				_ = c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				if _, err := c.Read(buf); err != nil && !isTimeout(err) {
					return
				}
			}
			_ = c.(*net.TCPConn).CloseWrite()
			_ = c.SetReadDeadline(time.Now().Add(patience))
			_, _ = io.Copy(io.Discard, c)
		})
	}
}

// FuzzRelay lets a client and a server say anything to each other through real
// sockets: nothing panics, and when both have had their say the connection
// ends and leaves nothing behind.
func FuzzRelay(f *testing.F) {
	f.Add(byte(0), pieces("EHLO x\r\n", "220 x\r\n", "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", "250 x\r\n",
		"text\r\n.\r\nQUIT\r\n", "250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n221 bye\r\n"))
	f.Add(byte(1), pieces("EHLO x\r\n", "220 x\r\n", "AUTH PLAIN AGEAYg==\r\n", "250 AUTH PLAIN\r\n", "*\r\n", "535 5.7.8 no\r\n"))
	f.Add(byte(2), pieces("a LOGIN b c\r\n", "* OK x\r\n", "b NOOP\r\n", "a OK [CAPABILITY IMAP4rev1] in\r\n", "c IDLE\r\n", "+ idling\r\n"))
	f.Add(byte(3), pieces("USER b\r\nPASS c\r\n", "+OK x\r\n", "STAT\r\n", "+OK\r\n+OK in\r\n", "QUIT\r\n", "+OK 0 0\r\n"))
	f.Add(byte(4), pieces("AUTHENTICATE \"PLAIN\" \"AGEAYg==\"\r\n", "\"SASL\" \"PLAIN\"\r\nOK\r\n", "LISTSCRIPTS\r\n", "OK\r\n"))
	server, conns, behind := fuzzedServer(f)
	f.Fuzz(func(t *testing.T, kind byte, text []byte) {
		p := protocol.All[int(kind)%len(protocol.All)]
		client, says := cutPieces(text)
		behind.mu.Lock()
		behind.says = says
		behind.mu.Unlock()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 99, 1)}}
		c, err := d.Dial("tcp", server[p.Name])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		for _, piece := range client {
			if _, err := c.Write(piece); err != nil {
				break
			}
		}
		_ = c.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, c); isTimeout(err) {
			t.Fatalf("%s: the connection does not end", p.Name)
		}
		waitFor(t, "the connection to be over", func() bool { return conns.count() == 0 })
	})
}

// fuzzedServer is a proxy with a listener for each protocol, and what stands
// behind it.
func fuzzedServer(f *testing.F) (addresses map[string]string, conns *registry, behind *babbler) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	behind = &babbler{Listener: l}
	behind.all.Add(1)
	go behind.serve()
	cfg := Config{
		Hostname: "p.test", Timeouts: DefaultTimeouts(), Limits: DefaultLimits(),
		Upstreams: []Upstream{{Name: "fake", Addresses: []string{l.Addr().String()}, ProxyProtocol: ProxyNone}},
	}
	auth := true
	for i, p := range protocol.All {
		cfg.Listeners = append(cfg.Listeners, Listener{Name: p.Name, Address: net.JoinHostPort(net.IPv4(127, 0, 98, byte(i+1)).String(), "0"),
			Protocol: p.Name, TLS: protocol.TLSNone, Upstream: "fake", PlaintextAuth: PlaintextYes, Auth: &auth})
	}
	log := slog.New(slog.DiscardHandler)
	g, err := guard.Open(guard.Config{IPv4Width: 32, IPv6Width: 64, MaxAddresses: 100, MaxNetworks: 100, MaxLogins: 100,
		GuardTime: guard.Duration(time.Hour), BanTime: guard.Duration(time.Hour), MaxBanTime: guard.Duration(time.Hour)},
		guard.Options{Store: guard.StoreConfig{Kind: "memory"}, Log: log})
	if err != nil {
		f.Fatal(err)
	}
	s, err := New(cfg, g, log)
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		ctx, cancel := contextNow()
		defer cancel()
		_ = s.Shutdown(ctx)
		g.Close()
		l.Close()
		behind.all.Wait()
	})
	addresses = map[string]string{}
	for name, a := range s.Addresses() {
		addresses[name] = a.String()
	}
	return addresses, s.conns, behind
}
