package guard

import (
	"bytes"
	"net/netip"
	"testing"
)

// A history that is read is one that this program could have written, whatever
// the store holds.
func FuzzSharedHistory(f *testing.F) {
	for _, k := range []sentenceKey{
		{kind: banned, scope: "auth", key: key{kind: byAddress, prefix: netip.MustParsePrefix("192.0.2.1/32")}},
		{kind: refused, key: key{kind: byNetwork, prefix: netip.MustParsePrefix("2001:db8::/48")}, simulated: true},
		{kind: guarded, key: key{kind: byLogin, login: "alice@example.test"}},
		{kind: guarded, key: key{kind: byPair, login: "a b", prefix: netip.MustParsePrefix("192.0.2.0/24")}},
	} {
		s := &sentence{sentenceKey: k, cause: cause{"login", "20/1h"}, reason: "why", since: 1e12, until: 2e12, forget: forever, repeats: 3, active: true}
		f.Add(sentenceName(k), sentenceField(k), appendHistory(nil, k, s, 7))
		f.Add(sentenceName(k), sentenceField(k), appendHistory(nil, k, nil, 0))
	}
	f.Fuzz(func(t *testing.T, name, field string, b []byte) {
		const ahead = 5
		h, err := readHistory(name, field, stamp{at: 1}, b, ahead, plainText)
		if err != nil {
			return
		}
		k := h.s.sentenceKey
		if !saneKey(k.key) || sentenceName(k) != name || sentenceField(k) != field {
			t.Fatalf("%q at %q gives a sentence about %+v", field, name, k)
		}
		again := h.s
		if h.forgotten {
			again = nil
		}
		back, err := readHistory(name, field, stamp{at: 1}, appendHistory(nil, k, again, ahead), ahead, plainText)
		if err != nil || back.forgotten != h.forgotten {
			t.Fatalf("what was read of %x does not come back: %v", b, err)
		}
		if !h.forgotten && !bytes.Equal(back.s.encode(nil), h.s.encode(nil)) {
			t.Fatalf("%+v comes back as %+v", h.s, back.s)
		}
	})
}
