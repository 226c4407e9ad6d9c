package guard

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
)

// How records look in the store. Bans and counters are binary, for there may
// be a million of each, and they are read in one go at the start; what is rare
// is JSON. Every value starts with the format's version.
//
// A decoder takes whatever it is given: what the store holds may be damaged, or
// be another's. It gives an error, or a value that this program could have
// written; it never takes more memory than a few times what it read.
const codecVersion = 2

var errRecord = errors.New("record in no known format")

// An encoder's texts are their length and their bytes, its numbers varints.
func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// A decoder reads what was appended. After the first fault it gives zeros and
// bad is set, so that a reader looks once, at its end.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// upTo reads a number that is at most most.
func (d *decoder) upTo(most uint64) uint64 {
	v := d.uvarint()
	if v > most {
		d.bad = true
		return 0
	}
	return v
}

// count reads how many elements follow, each of at least size bytes.
func (d *decoder) count(size int) int { return int(d.upTo(uint64(len(d.b) / size))) }

// text reads a text of at most most bytes.
func (d *decoder) text(most uint64, intern func([]byte) string) string {
	return intern(d.take(d.upTo(most)))
}

// plainText makes a text that is not shared.
func plainText(b []byte) string { return string(b) }

// version reads the version and tells whether it is this one.
func (d *decoder) version() {
	if d.byte() != codecVersion {
		d.bad, d.b = true, nil
	}
}

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
	d := decoder{b: b}
	k := key{kind: keyKind(d.byte())}
	addr := d.take(uint64(d.byte()))
	bits := d.byte()
	if d.bad || k.kind > byPair {
		return key{}, errRecord
	}
	if len(addr) > 0 {
		a, ok := netip.AddrFromSlice(addr)
		if k.prefix = netip.PrefixFrom(a, int(bits)); !ok || !validPrefix(k.prefix) {
			return key{}, errRecord
		}
	}
	k.login = string(d.b)
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
	d := decoder{b: b}
	k.kind = sentenceKind(d.byte())
	simulated := d.byte()
	k.scope = intern(d.take(uint64(d.byte())))
	if d.bad || k.kind > delayed || simulated > 1 {
		return k, errRecord
	}
	k.simulated = simulated == 1
	k.key, err = decodeKey(d.b)
	return k, err
}

// Bounds of a ban's texts, in bytes.
const (
	// MaxName bounds the names of rules, scopes and listeners: a ban with a
	// longer one could not be read back.
	MaxName   = 255
	maxReason = 4096
)

// flags of a ban's record.
const (
	flagActive = 1 << iota
	flagSoft
	flagManual
	knownFlags = flagActive | flagSoft | flagManual
)

// record gives the sentence as a record.
func (s *sentence) record() record {
	return record{bucket: bucketBans, key: s.storeKey(), value: s.encode(make([]byte, 0, 64+len(s.evidence)))}
}

// encode appends the sentence without its key: the version, a byte of flags,
// when it began, its length and that of its history (0: forever, else one
// more than it is), its count, its score, three texts, and what is left is the
// evidence. Times are milliseconds.
func (s *sentence) encode(b []byte) []byte {
	b = append(b, codecVersion, s.flags())
	b = binary.AppendVarint(b, s.since)
	b = binary.AppendUvarint(b, lasting(s.since, s.until))
	b = binary.AppendUvarint(b, lasting(s.until, s.forget))
	b = binary.AppendUvarint(b, uint64(s.repeats))
	b = binary.AppendVarint(b, int64(s.score))
	for _, text := range []string{s.rule, s.limit, s.reason} {
		b = appendText(b, text)
	}
	return append(b, s.evidence...)
}

// lasting gives the time between two moments for the store, and ending reads
// it back.
func lasting(from, to int64) uint64 {
	if to == forever {
		return 0
	}
	return uint64(max(to-from, 0)) + 1
}

func (d *decoder) ending(from int64) int64 {
	n := d.upTo(maxMoment)
	if n == 0 || from == forever {
		return forever
	}
	end := from + int64(n) - 1
	d.bad = d.bad || !saneMoment(end)
	return end
}

// minMoment and maxMoment bound times, to the years 101 to 8941: JSON has none
// before 0 and behind 9999, and what cannot be written there could not be listed,
// nor told to the shared store. Its clock may be as far ahead as maxAhead.
const (
	minMoment = -59_000_000_000_000
	maxMoment = 220_000_000_000_000
)

func saneMoment(t int64) bool { return minMoment <= t && t <= maxMoment }

// moment reads a time.
func (d *decoder) moment() int64 {
	t := d.varint()
	if !saneMoment(t) {
		d.bad = true
		return 0
	}
	return t
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
func (s *sentence) decode(key, value []byte, intern func([]byte) string) error {
	evidence, err := s.decodeHead(key, value, intern)
	s.evidence = string(evidence)
	return err
}

// decodeHead reads a sentence back but for its evidence, and gives that.
func (s *sentence) decodeHead(key, value []byte, intern func([]byte) string) (evidence []byte, err error) {
	if s.sentenceKey, err = decodeSentenceKey(key, intern); err != nil {
		return nil, err
	}
	d := decoder{b: value}
	d.version()
	flags := d.byte()
	s.active, s.soft, s.manual = flags&flagActive != 0, flags&flagSoft != 0, flags&flagManual != 0
	s.since = d.moment()
	s.until = d.ending(s.since)
	s.forget = d.ending(s.until)
	s.repeats = int32(d.upTo(math.MaxInt32))
	s.score = milli(d.varint())
	s.cause = cause{rule: d.text(MaxName, intern), limit: d.text(MaxName, intern)}
	s.reason = d.text(maxReason, intern)
	if d.bad || flags&^knownFlags != 0 {
		return nil, errRecord
	}
	return d.b, nil
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
