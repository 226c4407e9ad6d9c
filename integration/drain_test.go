package integration

import (
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// When mailreeve is told to end, a message under way is delivered, who waits
// for nothing hears a last word, and nobody new is let in.
func TestAStopDeliversWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, bed.Standard(nil))
	user := bed.Users[27]
	waiting := mustOpen(t, p.Guess("imaps", "127.48.0.1", "", ""))
	sending := mustOpen(t, p.Guess("mx", "127.48.0.2", "", ""))
	for _, command := range []string{"MAIL FROM:<" + envelopeFrom + ">", "RCPT TO:<" + user.Login + ">", "DATA"} {
		if reply, err := sending.SMTP("%s", command); err != nil || reply[0] > '3' {
			t.Fatalf("%s: %q, %v", command, reply, err)
		}
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.Stop()
	}()
	if said, err := waiting.Rest(); err != nil || !strings.HasPrefix(said, "* BYE") {
		t.Errorf("the waiting connection heard %q, %v; want a BYE", said, err)
	}
	testbed.Eventually(t, "the ports to be closed", func() bool {
		conn, err := testbed.Dial("127.48.0.3", p.Port("imaps"))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	subject := token(t)
	if reply, err := sending.SMTP("Subject: %s\r\n\r\nwhile stopping\r\n.", subject); err != nil || reply[0] != '2' {
		t.Errorf("the message under way: %q, %v", reply, err)
	}
	bed.AwaitMail(t, user.Login, subject)
	sending.Close()
	<-stopped
}
