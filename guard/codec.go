package guard

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
)

// How records look in the store. Bans have a binary head, for a million of
// them must load in a second; what is rarely read is JSON. Every value starts
// with the format's version.
const (
	codecVersion = 1

	flagActive = 1 << iota
	flagSoft
	flagManual
)

var errRecord = errors.New("record in no known format")

// appendKey encodes a key so that decodeKey reads it back.
func appendKey(b []byte, k key) []byte {
	b = append(b, byte(k.kind))
	addr, bits := k.prefix.Addr().AsSlice(), k.prefix.Bits()
	b = append(b, byte(len(addr)))
	b = append(b, addr...)
	b = append(b, byte(bits))
	return append(b, k.login...)
}

func decodeKey(b []byte) (key, error) {
	if len(b) < 3 || len(b) < 3+int(b[1]) || b[0] > byte(byPair) {
		return key{}, errRecord
	}
	k, n := key{kind: keyKind(b[0])}, int(b[1])
	if n > 0 {
		addr, ok := netip.AddrFromSlice(b[2 : 2+n])
		if !ok || int(b[2+n]) > addr.BitLen() {
			return key{}, errRecord
		}
		k.prefix = netip.PrefixFrom(addr, int(b[2+n]))
	}
	k.login = string(b[3+n:])
	return k, nil
}

// storeKey is the sentence's key in the store.
func (k sentenceKey) storeKey() string {
	b := []byte{byte(k.kind), 0, byte(len(k.scope))}
	if k.simulated {
		b[1] = 1
	}
	b = append(b, k.scope...)
	return string(appendKey(b, k.key))
}

func decodeSentenceKey(b []byte, intern func([]byte) string) (k sentenceKey, err error) {
	if len(b) < 3 || len(b) < 3+int(b[2]) || b[0] > byte(delayed) {
		return k, errRecord
	}
	k.kind, k.simulated = sentenceKind(b[0]), b[1] == 1
	n := int(b[2])
	k.scope = intern(b[3 : 3+n])
	k.key, err = decodeKey(b[3+n:])
	return k, err
}

// record gives the sentence as a record.
func (s *sentence) record() record {
	b := append(make([]byte, 0, 96+len(s.evidence)), codecVersion, s.flags())
	for _, v := range []int64{s.since, s.until, s.forget, int64(s.repeats), int64(s.score)} {
		b = binary.AppendVarint(b, v)
	}
	for _, text := range []string{s.rule, s.limit, s.reason} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	return record{bucket: bucketBans, key: s.storeKey(), value: append(b, s.evidence...)}
}

func (s *sentence) flags() (flags byte) {
	if s.active {
		flags |= flagActive
	}
	if s.soft {
		flags |= flagSoft
	}
	if s.manual {
		flags |= flagManual
	}
	return flags
}

// decode reads a sentence back. Its evidence stays encoded until it is asked
// for. s is to be a new one; after an error it is of no use.
func (s *sentence) decode(key, b []byte, intern func([]byte) string) (err error) {
	s.sentenceKey, err = decodeSentenceKey(key, intern)
	if err != nil || len(b) < 2 || b[0] != codecVersion {
		return errRecord
	}
	flags := b[1]
	s.active, s.soft, s.manual = flags&flagActive != 0, flags&flagSoft != 0, flags&flagManual != 0
	b = b[2:]
	var nums [5]int64
	for i := range nums {
		v, n := binary.Varint(b)
		if n <= 0 {
			return errRecord
		}
		nums[i], b = v, b[n:]
	}
	s.since, s.until, s.forget, s.repeats, s.score = nums[0], nums[1], nums[2], int32(nums[3]), milli(nums[4])
	var c cause
	for _, text := range []*string{&c.rule, &c.limit, &c.reason} {
		l, n := binary.Uvarint(b)
		if n <= 0 || l > uint64(len(b)-n) {
			return errRecord
		}
		*text, b = intern(b[n:n+int(l)]), b[n+int(l):]
	}
	s.cause, s.evidence = &c, string(b)
	return nil
}

// events gives the sentence's evidence.
func (s *sentence) events() (out []Scored) {
	if s.evidence == "" || json.Unmarshal([]byte(s.evidence), &out) != nil {
		return nil
	}
	return out
}

// A storedEntry is a ledger's entry in the store.
type storedEntry struct {
	Windows []storedWindow `json:"w"`
}

type storedWindow struct {
	Rule   string       `json:"r"`
	Good   bool         `json:"g,omitempty"`
	Limit  milli        `json:"l"`
	Period int64        `json:"p"` // milliseconds
	Keep   int          `json:"k"`
	Share  bool         `json:"s,omitempty"`
	Marks  []storedMark `json:"m"`
}

type storedMark struct {
	At     int64  `json:"t"`
	Points milli  `json:"p"`
	Value  uint32 `json:"v,omitempty"`
	Hard   bool   `json:"h,omitempty"`
	Event  *Event `json:"e,omitempty"`
}

// encode gives the entry's value in the store, nil if there is nothing to keep.
// A reservation is kept as if it were charged: after a crash nobody knows.
func (e *entry) encode(now int64) []byte {
	var out storedEntry
	for i := range e.windows {
		w := &e.windows[i]
		sw := storedWindow{Rule: w.rule, Good: w.good, Limit: w.limit, Period: w.period.Milliseconds(), Keep: w.keep, Share: w.share}
		for _, m := range w.marks {
			sw.Marks = append(sw.Marks, storedMark{m.at, m.points, m.value, m.hard, m.event()})
		}
		for _, p := range w.pending {
			if p.value == 0 || !w.has(p.value) {
				sw.Marks = append(sw.Marks, storedMark{At: now, Points: p.points, Value: p.value})
			}
		}
		if len(sw.Marks) > 0 {
			out.Windows = append(out.Windows, sw)
		}
	}
	if len(out.Windows) == 0 {
		return nil
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil // cannot happen with plain data
	}
	return append([]byte{codecVersion}, b...)
}

// decodeJSON reads a value of this version.
func decodeJSON(b []byte, into any) error {
	if len(b) == 0 || b[0] != codecVersion {
		return errRecord
	}
	return json.Unmarshal(b[1:], into)
}

func encodeJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("guard: encode %T: %v", v, err)) // plain data always marshals
	}
	return append([]byte{codecVersion}, b...)
}
