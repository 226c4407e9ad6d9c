package transcript_test

import (
	"strings"
	"testing"

	"mailreeve/protocol"
	"mailreeve/protocol/transcript"
)

func TestParseSaysWhatIsWrong(t *testing.T) {
	tests := []struct{ text, want string }{
		{"C: NOOP\n", "1: no claim"},
		{"# x\nC NOOP\n", "2: what is"},
		{"# x\n: colour=red\n", `2: unknown key "colour"`},
		{"# x\n: tls\n", "2: \"tls\" is not key=value"},
		{"# x\nC: \\q\n", `2: unknown escape \q`},
		{"# x\n! success login=\"a\n", "2: value of login"},
	}
	for _, test := range tests {
		_, err := transcript.Parse([]byte(test.text))
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%q: got %v, want %q", test.text, err, test.want)
		}
	}
}

func TestParseEscapes(t *testing.T) {
	tr, err := transcript.Parse([]byte("# x\nC: a\\r\\n\\t\\0\\x41\\\\\\*3{bc}\nC: open\\\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(tr.Entries[0].Text), "a\r\n\t\x00A\\bcbcbc\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := string(tr.Entries[1].Text); got != "open" {
		t.Errorf("got %q, want no line end", got)
	}
}

// TestPlayNotices plays a dialogue that SMTP keeps, changed so that it does
// not: each change must be noticed.
func TestPlayNotices(t *testing.T) {
	good := `# x
: tls=implicit secure=true
P: 220 mx.example.test ESMTP
C: EHLO c.example
-- dial --
S- 220 mail.example.test ESMTP

S: 250 AUTH PLAIN
C: AUTH PLAIN AGFsaWNlAHdyb25n
? pass login=alice
-- phase: judged --
S: 535 5.7.8 no
! auth-failure login=alice code="535 5.7.8"
C- XCLIENT a=b
P: 502 5.5.1 Error: command not implemented
C: QUIT
S: 221 Bye
-- end --
`
	play := func(text string) error {
		tr, err := transcript.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return transcript.Play(protocol.Lookup("smtp"), tr, transcript.ByLine)
	}
	if err := play(good); err != nil {
		t.Fatal(err)
	}
	changes := [][2]string{
		{"! auth-failure login=alice code=\"535 5.7.8\"\n", ""},
		{"login=alice code", "login=bob code"},
		{"! auth-failure", "! success"},
		{"? pass login=alice\n", ""},
		{"? pass login=alice", "? guarded login=alice"},
		{"-- dial --\n", ""},
		{"-- end --\n", ""},
		{"phase: judged", "phase: idle"},
		{"C- XCLIENT", "C: XCLIENT"},
		{"P: 502 5.5.1 Error: command not implemented\n", ""},
		{"S- 220 mail", "S: 220 mail"},
		{"C: QUIT", "C- QUIT"},
		{"-- end --\n", "-- end --\nC: NOOP\n"},
	}
	for _, change := range changes {
		if err := play(strings.Replace(good, change[0], change[1], 1)); err == nil {
			t.Errorf("not noticed: %q instead of %q", change[1], change[0])
		}
	}
}
