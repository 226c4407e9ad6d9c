package guard

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"mailreeve/protocol"
)

func drawKey(t *rapid.T) key {
	kind := rapid.SampledFrom([]keyKind{byAddress, byNetwork, byLogin, byPair}).Draw(t, "key kind")
	k := key{kind: kind}
	if kind != byLogin {
		k.prefix = rapid.SampledFrom([]netip.Prefix{
			netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64"),
		}).Draw(t, "prefix")
	}
	if kind >= byLogin {
		k.login = rapid.StringN(1, 20, 255).Draw(t, "login")
	}
	return k
}

func drawSentence(t *rapid.T) *sentence {
	s := &sentence{
		sentenceKey: sentenceKey{
			kind: rapid.SampledFrom([]sentenceKind{banned, guarded, refused, delayed}).Draw(t, "kind"), key: drawKey(t),
			scope: rapid.SampledFrom([]string{"", "auth", "a name of my own"}).Draw(t, "scope"), simulated: rapid.Bool().Draw(t, "simulated"),
		},
		cause:   cause{rapid.StringN(0, 20, 255).Draw(t, "rule"), rapid.StringN(0, 9, 255).Draw(t, "limit")},
		reason:  rapid.StringN(0, 50, 4096).Draw(t, "reason"),
		since:   rapid.Int64Range(-1e12, 1e13).Draw(t, "since"),
		score:   milli(rapid.Int64().Draw(t, "score")),
		repeats: rapid.Int32Min(0).Draw(t, "repeats"),
		active:  rapid.Bool().Draw(t, "active"), soft: rapid.Bool().Draw(t, "soft"), manual: rapid.Bool().Draw(t, "manual"),
	}
	s.until, s.forget = int64(forever), int64(forever)
	if length := rapid.Int64Range(-1, 1e12).Draw(t, "length"); length >= 0 {
		s.until = s.since + length
		if history := rapid.Int64Range(-1, 1e12).Draw(t, "history"); history >= 0 {
			s.forget = s.until + history
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "events") {
		e := Scored{Points: float64(rapid.Int32Range(0, 5000).Draw(t, "points")) / 1000, Folded: rapid.IntRange(0, 3).Draw(t, "folded")}
		e.Event = drawEvent(t)
		s.evidence = encodeEvidence(append(s.events(), e))
	}
	return s
}

func drawEvent(t *rapid.T) Event {
	text := func(name string) string { return rapid.StringN(0, 10, 40).Draw(t, name) }
	e := Event{
		Time: time.UnixMilli(rapid.Int64Range(0, 1e13).Draw(t, "time")), Kind: protocol.Kind("k" + text("kind")),
		Listener: text("listener"), Scope: text("scope"), Protocol: text("protocol"), Upstream: text("upstream"),
		Conn: rapid.Uint64().Draw(t, "conn"), Login: text("login"), Recipient: text("recipient"), Code: text("code"), ID: text("id"),
		Familiar: rapid.Bool().Draw(t, "familiar"), Outcome: text("outcome"), Verdict: text("verdict"), Rule: text("rule"),
		Took: Duration(rapid.Int64Range(0, 1e12).Draw(t, "took")),
	}
	if rapid.Bool().Draw(t, "addr") {
		e.Addr = netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address")))
	}
	if rapid.Bool().Draw(t, "guess") {
		e.Guess = printGuess(rapid.Uint16().Draw(t, "bits"))
	}
	return e
}

// What is written of a ban is read back, its evidence with it.
func TestASentenceIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSentence(t)
		r := s.record()
		var back sentence
		if err := back.decode([]byte(r.key), r.value, plainText); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(*s, back) {
			t.Fatalf("wrote %+v, read %+v", s, back)
		}
		if want, got := s.events(), back.events(); !reflect.DeepEqual(want, got) {
			t.Fatalf("wrote %+v, read %+v", want, got)
		}
	})
}

// What is written of a counter is read back; what is only reserved is as if it
// had been charged.
func TestAnEntryIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := &entry{key: drawKey(t)}
		var want []ruleWindow
		for i := range rapid.IntRange(1, 3).Draw(t, "windows") {
			w := ruleWindow{rule: string(rune('a' + i)), good: rapid.Bool().Draw(t, "good"), terms: terms{
				limit: milli(rapid.Int64Min(0).Draw(t, "limit")), period: time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "period")) * time.Millisecond,
				keep: rapid.IntRange(1, 4096).Draw(t, "keep"), share: rapid.Bool().Draw(t, "share"),
			}}
			for range rapid.IntRange(1, 4).Draw(t, "marks") {
				m := mark{
					at: rapid.Int64Range(0, 1e13).Draw(t, "at"), points: milli(rapid.Int64().Draw(t, "points")),
					value: rapid.Uint32().Draw(t, "value"), hard: rapid.Bool().Draw(t, "hard"),
				}
				if rapid.Bool().Draw(t, "event") {
					ev := drawEvent(t)
					m.trace = commons(nil).trace(&ev)
				}
				w.marks = append(w.marks, m)
			}
			want = append(want, w)
			e.windows = append(e.windows, w)
		}
		pending := pendingPoints{points: 1000, refs: 1}
		e.windows[0].pending = []pendingPoints{pending}
		want[0].marks = append(want[0].marks, mark{at: 77, points: 1000})
		got, err := decodeEntry(e.encode(77), make(commons))
		if err != nil || !reflect.DeepEqual(want, got) {
			t.Fatalf("wrote %+v, read %+v, %v", want, got, err)
		}
	})
	var none *entry = &entry{windows: []ruleWindow{{rule: "empty"}}}
	if b := none.encode(0); b != nil {
		t.Errorf("an entry with nothing to keep is %x", b)
	}
}

// Whatever the store holds: an error, or a ban that is written and read as it
// is.
func FuzzDecodeSentence(f *testing.F) {
	seed := rapid.Custom(drawSentence)
	for i := range 20 {
		r := seed.Example(i).record()
		f.Add([]byte(r.key), r.value)
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		var s, again sentence
		if s.decode(key, value, plainText) != nil {
			return
		}
		r := s.record()
		if err := again.decode([]byte(r.key), r.value, plainText); err != nil || !reflect.DeepEqual(s, again) {
			t.Fatalf("%x %x: read %+v, and after it was written %+v, %v", key, value, s, again, err)
		}
		events, err := decodeEvidence(s.evidence)
		if err != nil {
			return
		}
		back, err := decodeEvidence(encodeEvidence(events))
		if err != nil || len(back) != len(events) {
			t.Fatalf("%x: evidence of %d events, and after it was written %d, %v", value, len(events), len(back), err)
		}
	})
}

// Whatever the store holds: an error, or windows that are written and read as
// they are.
func FuzzDecodeEntry(f *testing.F) {
	for _, n := range []int{1, 3} {
		e := entry{windows: []ruleWindow{{rule: "authentication", terms: terms{limit: 10000, period: time.Hour, keep: 10}}}}
		for i := range n {
			ev := Event{Kind: protocol.AuthFailure, Addr: netip.MustParseAddr("192.0.2.1"), Login: "alice", Code: "535 5.7.8", Guess: "00ff"}
			e.windows[0].marks = append(e.windows[0].marks, mark{at: int64(i) * 1000, points: 1000, value: uint32(i), trace: make(commons).trace(&ev)})
		}
		f.Add(e.encode(0))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		windows, err := decodeEntry(value, make(commons))
		if err != nil {
			return
		}
		var kept []ruleWindow
		for _, w := range windows {
			if len(w.marks) > 0 {
				kept = append(kept, w)
			}
		}
		again, err := decodeEntry((&entry{windows: kept}).encode(0), make(commons))
		if len(kept) == 0 {
			return
		}
		if err != nil || !reflect.DeepEqual(kept, again) {
			t.Fatalf("%x: read %+v, and after it was written %+v, %v", value, kept, again, err)
		}
	})
}

// A count that nothing follows costs no memory.
func TestAHostileCountTakesNoMemory(t *testing.T) {
	for _, prefix := range [][]byte{{codecVersion}, {codecVersion, 0}, {codecVersion, 0, 0}} {
		value := binary.AppendUvarint(bytes.Clone(prefix), 1<<40)
		if n := testing.AllocsPerRun(1, func() {
			if _, err := decodeEntry(value, make(commons)); err == nil {
				t.Errorf("%x was taken", value)
			}
		}); n > 10 {
			t.Errorf("%x: %v allocations", value, n)
		}
	}
}

// A ban's record that stands in another's place, whole as it is, is damage: the
// checksum covers where a record is.
func TestARecordInAnothersPlaceIsDamage(t *testing.T) {
	dir := t.TempDir()
	s := onDisk(t, dir, nil)
	for _, target := range []string{"192.0.2.1", "192.0.2.2"} {
		if _, err := s.g.AddBan(BanRequest{Target: target, For: Forever, Reason: target}); err != nil {
			t.Fatal(err)
		}
	}
	s.written()
	if err := s.g.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(dir, storeFile), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketBans))
		first, value := b.Cursor().First()
		value = bytes.Clone(value)
		last, _ := b.Cursor().Last()
		if bytes.Equal(first, last) {
			t.Error("there is one record only")
		}
		return b.Put(last, value)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s = onDisk(t, dir, nil)
	defer s.g.Close()
	if st := s.g.Status(); st.Bans != 1 || st.Store.Recovered == "" {
		t.Errorf("%d bans, want 1; recovered: %q", st.Bans, st.Store.Recovered)
	}
}

// A ban that ends when no time can be written is no ban of ours.
func TestABanEndsWithinTheTimesThatCanBeWritten(t *testing.T) {
	for _, tt := range []struct {
		since, until, forget int64
		ok                   bool
	}{
		{maxMoment - 10, maxMoment - 5, maxMoment, true},
		{maxMoment - 10, maxMoment - 5, maxMoment + 1, false},
		{maxMoment - 10, maxMoment + 1, forever, false},
		{maxMoment + 1, forever, forever, false},
		{minMoment - 1, forever, forever, false},
		{minMoment, forever, forever, true},
	} {
		s := sentence{since: tt.since, until: tt.until, forget: tt.forget}
		s.sentenceKey = sentenceKey{kind: banned, key: key{kind: byAddress, prefix: mustAddr("192.0.2.1")}, scope: "all"}
		var back sentence
		if err := back.decode([]byte(s.storeKey()), s.encode(nil), plainText); (err == nil) != tt.ok {
			t.Errorf("from %d to %d, kept until %d: %v", tt.since, tt.until, tt.forget, err)
		}
	}
}
