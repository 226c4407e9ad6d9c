package integration

import (
	"crypto/tls"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// A browser that is made to speak to a mail port (ALPACA) gets no further than
// its first line, and no handshake if it says that it wants HTTP.
func TestAttackCrossProtocol(t *testing.T) {
	t.Parallel()
	cfg := bed.Standard(map[string]any{"abuse": "5/1d"})
	p := bed.NewProxy(t, cfg)
	for _, listener := range []string{"imaps", "submissions"} {
		config := testbed.AnyTLS()
		config.NextProtos = []string{"h2", "http/1.1"}
		conn, err := testbed.Dial("127.79.0.1", p.Port(listener))
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Handshake(config); err == nil {
			t.Errorf("%s shakes hands for %q", listener, config.NextProtos)
		}
		conn.Close()
	}
	request := "POST / HTTP/1.1\r\nHost: mx.example.test\r\n\r\na LOGIN alice " + "<script>alert(1)</script>" + "\r\n"
	for i, listener := range []string{"mx", "imap", "submission"} {
		from := "127.79.1." + string(rune('1'+i))
		conn, err := testbed.Dial(from, p.Port(listener))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Reply(); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		if said, err := conn.Rest(); err != nil || strings.Contains(said, "script") {
			t.Errorf("%s: %q, %v", listener, said, err)
		}
		conn.Close()
		mustBan(t, p, from)
	}
	// A handshake in clear text is a phone that tries ports: nothing.
	for range 20 {
		conn, err := testbed.Dial("127.79.2.1", p.Port("mx"))
		if err != nil {
			t.Fatal(err)
		}
		_ = tls.Client(conn, testbed.AnyTLS()).Handshake()
		conn.Close()
	}
	if points := p.Points("127.79.2.1"); points != 0 {
		t.Errorf("%v points for TLS on a clear-text port", points)
	}
}

// What a client calls itself makes no line of ours and no label: neither in the
// log, nor in the metrics, nor in the server's dialogue.
func TestAttackLogInjection(t *testing.T) {
	t.Parallel()
	cfg := bed.Standard(map[string]any{"authentication": "100/1h"})
	cfg.Log = map[string]any{"format": "text"}
	p := bed.NewProxy(t, cfg)
	forged := "alice\n" + `level=INFO msg=forged login="x" } mailreeve_forged{a="b"} 1` + "\x1b[2J\r\nforged: yes"
	conn := mustOpen(t, p.Guess("submission", "127.79.3.1", "", ""))
	if _, err := conn.SMTP("AUTH PLAIN %s", base64.StdEncoding.EncodeToString([]byte("\x00"+forged+"\x00"+bed.Secrets.New("forged")))); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	conn = mustOpen(t, p.Guess("submission", "127.79.3.1", "", ""))
	_, _ = conn.SMTP("EHLO %s", `x msg=forged "} mailreeve_forged{a="b"} 1`)
	conn.Close()
	testbed.Eventually(t, "the connections' log lines", func() bool {
		return len(p.Log.Lines(`msg=connection .*127\.79\.3\.1`)) == 2
	})
	for line := range strings.Lines(p.Log.Text()) {
		if !strings.HasPrefix(line, "time=") || strings.Contains(line, "\x1b") {
			t.Errorf("a line that is not ours: %q", line)
		}
	}
	resp, err := http.Get("http://" + p.Config.Admin["metrics"].(string) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n := p.Metric("mailreeve_forged", nil); n != 0 || resp.StatusCode != http.StatusOK {
		t.Errorf("a forged metric: %v", n)
	}
	out := p.Admin("why", "127.79.3.1")
	if strings.Contains(out, "\x1b") || strings.Contains(out, "\nforged") {
		t.Errorf("why prints %q", out)
	}
}
