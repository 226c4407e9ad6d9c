package protocol_test

import (
	"bytes"
	"strings"
	"testing"

	"mailreeve/protocol"
)

// drive shows all of data to one side of a conversation.
func drive[T string | []byte](b testing.TB, side func([]byte) protocol.Step, data T) {
	for rest := []byte(data); len(rest) > 0; {
		step := side(rest)
		if step.Do != protocol.Continue && step.Do != protocol.Dial {
			b.Fatalf("got %v at %.60q", step.Do, rest)
		}
		if step.Do == protocol.Dial {
			return
		}
		rest = rest[step.Take:]
	}
}

// opened gives a conversation whose server is ready.
func opened(b testing.TB) protocol.Conversation {
	c := protocol.Lookup("smtp").New(protocol.Setup{
		Offer: &protocol.Offer{}, TLS: protocol.TLSImplicit, Secure: true})
	drive(b, c.Client, "EHLO client.example\r\n")
	c.Dialled()
	drive(b, c.Server, "220 mx ESMTP\r\n")
	drive(b, c.Client, "EHLO client.example\r\n")
	drive(b, c.Server, "250-mx\r\n250 PIPELINING\r\n")
	return c
}

// BenchmarkSMTPMessage is one pipelined message of 4 KiB after another in one
// connection: what the conversation costs, without sockets.
func BenchmarkSMTPMessage(b *testing.B) {
	c := opened(b)
	body := strings.Repeat("Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod.\r\n", 55)
	envelope := []byte("MAIL FROM:<a@sender.example>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n")
	replies := []byte("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go on\r\n")
	message, queued := []byte(body+".\r\n"), []byte("250 2.0.0 Ok: queued as 4F3B21\r\n")
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		drive(b, c.Client, envelope)
		drive(b, c.Server, replies)
		drive(b, c.Client, message)
		drive(b, c.Server, queued)
	}
}

// TestBodyCostsNoAllocation: the bytes of a message pass without any.
func TestBodyCostsNoAllocation(t *testing.T) {
	c := opened(t)
	drive(t, c.Client, "MAIL FROM:<a@sender.example>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n")
	drive(t, c.Server, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go on\r\n")
	body := bytes.Repeat([]byte("Lorem ipsum.\r\n..\r\n"), 500)
	allocs := testing.AllocsPerRun(100, func() {
		if step := c.Client(body); step.Take != len(body) || !step.Forward {
			t.Fatalf("took %d of %d", step.Take, len(body))
		}
	})
	if allocs != 0 {
		t.Errorf("got %v allocations a chunk, want 0", allocs)
	}
}

// TestPendingIsBounded: who sends commands and reads no replies is stopped.
func TestPendingIsBounded(t *testing.T) {
	c := opened(t)
	line := []byte("RCPT TO:<alice@example.test>\r\n")
	for i := range protocol.MaxPending {
		if step := c.Client(line); step.Take != len(line) {
			t.Fatalf("command %d: took %d", i, step.Take)
		}
	}
	if step := c.Client(line); step.Do != protocol.Wait || step.Take != 0 {
		t.Fatalf("at the bound: got %+v, want Wait", step)
	}
	drive(t, c.Server, "250 2.1.5 Ok\r\n")
	if step := c.Client(line); step.Take != len(line) {
		t.Fatalf("behind a reply: took %d", step.Take)
	}
}

// TestSentences: every last word is one SMTP line that names the host.
func TestSentences(t *testing.T) {
	for w := protocol.SayBanned; w <= protocol.SayViolation; w++ {
		text := string(protocol.Lookup("smtp").Say(w, "mx.example.test"))
		if !strings.HasSuffix(text, "\r\n") || strings.Count(text, "\n") != 1 ||
			!strings.Contains(text, " mx.example.test ") || text[0] != '4' && text[0] != '5' {
			t.Errorf("word %d: %q", w, text)
		}
	}
}
