package protocol

import (
	"encoding/base64"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func b64(s string) []byte { return []byte(base64.StdEncoding.EncodeToString([]byte(s))) }

// TestExchange feeds whole exchanges: each response in turn, as clear text,
// and what it must be taken for.
func TestExchange(t *testing.T) {
	type response struct {
		text string
		want saslStep
	}
	tests := []struct {
		name      string
		mech      string
		sep       string
		initial   string // clear text; "-" for none
		first     saslStep
		responses []response
		ids       []string
		secret    string
	}{
		{name: "plain with initial response", mech: "plain", initial: "\x00alice\x00pw", first: saslHold,
			ids: []string{"alice"}, secret: "pw"},
		{name: "plain, authorisation identity counts too", mech: "PLAIN", initial: "bob\x00alice\x00pw", first: saslHold,
			ids: []string{"alice", "bob"}, secret: "pw"},
		{name: "plain after a challenge", mech: "PLAIN", initial: "-", first: saslPass,
			responses: []response{{"\x00alice\x00pw", saslHold}}, ids: []string{"alice"}, secret: "pw"},
		{name: "plain with too few fields", mech: "PLAIN", initial: "alice\x00pw", first: saslGarbled},
		{name: "plain with too many fields", mech: "PLAIN", initial: "\x00alice\x00pw\x00", first: saslGarbled},
		{name: "plain, no second secret in one exchange", mech: "PLAIN", initial: "\x00alice\x00pw", first: saslHold,
			responses: []response{{"\x00alice\x00other", saslGarbled}}, ids: []string{"alice"}, secret: "pw"},
		{name: "login", mech: "LOGIN", initial: "-", first: saslPass,
			responses: []response{{"alice", saslPass}, {"pw", saslHold}}, ids: []string{"alice"}, secret: "pw"},
		{name: "login with initial response", mech: "LOGIN", initial: "alice", first: saslPass,
			responses: []response{{"pw", saslHold}}, ids: []string{"alice"}, secret: "pw"},
		{name: "a master login counts for all three names", mech: "LOGIN", sep: "*", initial: "alice*root", first: saslPass,
			responses: []response{{"pw", saslHold}}, ids: []string{"alice*root", "alice", "root"}, secret: "pw"},
		{name: "cram-md5", mech: "CRAM-MD5", initial: "-", first: saslPass,
			responses: []response{{"alice b913a602c7eda7a495b4e6e7334d3890", saslHold}}, ids: []string{"alice"}},
		{name: "cram-md5 has no initial response", mech: "CRAM-MD5", initial: "alice b913", first: saslGarbled},
		{name: "scram names its user in the first message", mech: "SCRAM-SHA-256", initial: "n,,n=al=2Cice,r=abc", first: saslHold,
			responses: []response{{"c=biws,r=abcdef,p=xyz=", saslPass}, {"", saslPass}}, ids: []string{"al,ice"}},
		{name: "scram with an authorisation identity", mech: "SCRAM-SHA-1", initial: "y,a=bob,n=alice,r=abc", first: saslHold,
			ids: []string{"alice", "bob"}},
		{name: "scram without a user", mech: "SCRAM-SHA-1", initial: "n,,r=abc", first: saslGarbled},
		{name: "xoauth2, and its error report", mech: "XOAUTH2", initial: "user=alice\x01auth=Bearer tok\x01\x01", first: saslHold,
			responses: []response{{"", saslPass}}, ids: []string{"alice"}, secret: "Bearer tok"},
		{name: "oauthbearer, and its error report", mech: "OAUTHBEARER", initial: "n,a=alice,\x01host=h\x01auth=Bearer tok\x01\x01", first: saslHold,
			responses: []response{{"\x01", saslPass}}, ids: []string{"alice"}, secret: "Bearer tok"},
		{name: "oauthbearer, no second token in one exchange", mech: "OAUTHBEARER", initial: "n,a=alice,\x01auth=Bearer tok\x01\x01", first: saslHold,
			responses: []response{{"n,a=alice,\x01auth=Bearer two\x01\x01", saslGarbled}}, ids: []string{"alice"}, secret: "Bearer tok"},
		{name: "an opaque mechanism is an attempt at the command", mech: "GSSAPI", initial: "-", first: saslHold,
			responses: []response{{"\x60\x82", saslPass}, {"", saslPass}}},
		{name: "blanks and control characters make no fresh name", mech: "PLAIN",
			initial: "\x00 al\ti\x7fce\u200b \x00pw", first: saslHold, ids: []string{"alice"}, secret: "pw"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			x := newExchange(test.mech, test.sep)
			initial, has := b64(test.initial), test.initial != "-"
			if got := x.begin(initial, has); got != test.first {
				t.Fatalf("initial response: got %v, want %v", got, test.first)
			}
			for i, r := range test.responses {
				if got := x.respond(b64(r.text)); got != r.want {
					t.Fatalf("response %d: got %v, want %v", i+1, got, r.want)
				}
			}
			if test.ids == nil && test.secret == "" {
				return
			}
			got := x.credential()
			if got == nil {
				t.Fatal("no credential")
			}
			if diff := cmp.Diff(test.ids, got.Identities); diff != "" {
				t.Errorf("identities (-want +got):\n%s", diff)
			}
			if string(got.Secret) != test.secret {
				t.Errorf("secret: got %q, want %q", got.Secret, test.secret)
			}
		})
	}
}

func TestExchangeAbortAndGarbage(t *testing.T) {
	x := newExchange("LOGIN", "")
	x.begin(nil, false)
	if got := x.respond([]byte("*")); got != saslAbort {
		t.Errorf("*: got %v, want abort", got)
	}
	for _, line := range []string{"!!!!", "YWxpY2U=\r", "YQ==YQ==", "Y"} {
		if got := newExchange("LOGIN", "").respond([]byte(line)); got != saslGarbled {
			t.Errorf("%q: got %v, want garbled", line, got)
		}
	}
	if got := newExchange("PLAIN", "").begin([]byte("="), true); got != saslGarbled {
		t.Errorf("empty PLAIN: got %v, want garbled", got)
	}
	if got := newExchange("LOGIN", "").begin([]byte("="), true); got != saslPass {
		t.Errorf("empty LOGIN name: got %v, want pass", got)
	}
	if got := newExchange("LOGIN", "").respond([]byte("YWxpY2U")); got != saslPass {
		t.Errorf("missing padding: got %v, want pass", got)
	}
}

func TestIdentityIsCutAtACharacter(t *testing.T) {
	got := identity(strings.Repeat("é", 200))
	if len(got) != 254 || !utf8.ValidString(got) {
		t.Errorf("got %d bytes, valid %v", len(got), utf8.ValidString(got))
	}
}

func FuzzExchange(f *testing.F) {
	f.Add("PLAIN", "*", []byte("AGFsaWNlAHB3"), []byte("*"))
	f.Add("LOGIN", "", []byte("YWxpY2U="), []byte("cHc="))
	f.Add("SCRAM-SHA-1", "", b64("n,a=b,n=alice,r=x"), b64("c=biws"))
	f.Add("OAUTHBEARER", "", b64("n,a=b,\x01auth=Bearer x\x01\x01"), b64("\x01"))
	f.Fuzz(func(t *testing.T, mech, sep string, first, second []byte) {
		x := newExchange(mech, sep)
		held := 0
		for i, line := range [][]byte{first, second, second} {
			var got saslStep
			if i == 0 {
				got = x.begin(line, len(line) > 0)
			} else {
				got = x.respond(line)
			}
			if got != saslHold {
				continue
			}
			held++
			cred := x.credential()
			if len(cred.Identities) > 6 || len(cred.Secret) > len(line) {
				t.Fatalf("too large a credential: %d names", len(cred.Identities))
			}
			for _, id := range cred.Identities {
				if id == "" || len(id) > MaxIdentity || !utf8.ValidString(id) {
					t.Fatalf("bad identity %q", id)
				}
			}
		}
		if held > 1 {
			t.Fatal("two credentials in one exchange")
		}
	})
}
