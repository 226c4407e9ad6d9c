package integration

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"mailreeve/integration/testbed"
)

// bigSize is what a message may have almost everywhere.
const bigSize = 20 << 20

// bigBody is text that compresses badly and has what is dangerous: lines that
// start with dots, and words that look like replies and commands.
func bigBody() []byte {
	random := rand.New(rand.NewPCG(20, 26))
	raw := make([]byte, 57)
	hard := []string{".", "..", ".QUIT", "535 5.7.8 Error: authentication failed", "a NO [AUTHENTICATIONFAILED] no",
		"BDAT 5 LAST", "", "From here"}
	var body bytes.Buffer
	for n := 0; body.Len() < bigSize; n++ {
		if n%50 == 0 {
			fmt.Fprintf(&body, "%s\r\n", hard[n/50%len(hard)])
			continue
		}
		for i := range raw {
			raw[i] = byte(random.Uint32())
		}
		fmt.Fprintf(&body, "%s\r\n", base64.StdEncoding.EncodeToString(raw))
	}
	return body.Bytes()
}

// Twenty mebibytes arrive byte for byte: sent through port 25 and submission,
// stored and fetched through IMAP, in the clear and over TLS.
func TestTwentyMebibytesArriveByteForByte(t *testing.T) {
	t.Parallel()
	p := bed.NewProxy(t, bed.Standard(nil))
	body := bigBody()
	cases := []struct {
		listener, tls string
		login         bool
	}{{"mx", "none", false}, {"mx", "starttls", false}, {"submissions", "implicit", true}}
	for i, c := range cases {
		t.Run(c.listener+" "+c.tls, func(t *testing.T) {
			to := target{p.Port(c.listener), c.tls, fmt.Sprintf("127.44.0.%d", i+1), testbed.User{}}
			if c.login {
				to.user = bed.Users[23]
			}
			subject := token(t)
			if err := curlSend(t, to, bed.Users[24].Login, message(subject, string(body))); err != nil {
				t.Fatal(err)
			}
			stored := bed.AwaitMail(t, bed.Users[24].Login, subject)
			_, got, _ := bytes.Cut(stored, []byte("\n\n"))
			want := append(bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n")), '\n')
			sameBytes(t, want, got)
		})
	}

	t.Run("imaps, there and back", func(t *testing.T) {
		user := bed.Users[25]
		from := target{p.Port("imaps"), "implicit", "127.44.1.1", user}
		path := filepath.Join(t.TempDir(), "message")
		want := message(token(t), string(body))
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		args := append(curlArgs(from), "--upload-file", path, fmt.Sprintf("imaps://127.0.0.1:%d/INBOX", from.port))
		if _, err := runClient(nil, "curl", args...); err != nil {
			t.Fatal(err)
		}
		got, err := curlFetch(t, from)
		if err != nil {
			t.Fatal(err)
		}
		sameBytes(t, want, got)
		from.port, from.tls = p.Port("imap"), "starttls"
		if got, err = pythonFetch(t, from); err != nil {
			t.Fatal(err)
		}
		sameBytes(t, want, got)
	})
}

// sameBytes compares without printing megabytes.
func sameBytes(t *testing.T, want, got []byte) {
	t.Helper()
	if bytes.Equal(want, got) {
		return
	}
	at := 0
	for at < min(len(want), len(got)) && want[at] == got[at] {
		at++
	}
	t.Errorf("got %d bytes, want %d; they differ at byte %d: got %q, want %q", len(got), len(want), at,
		got[at:min(len(got), at+60)], want[at:min(len(want), at+60)])
}
