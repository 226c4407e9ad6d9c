package guard

import (
	"encoding/json"
	"errors"
	"math"
	"net/netip"
	"time"

	"mailreeve/protocol"
)

// A history is what the store remembers of a sentence, in the binary form of
// this program's own store: its key and, unless it is forgotten with all that
// was of it, the sentence without its evidence, with the fleet's times. A node
// that starts reads the histories only, for a million bans must not take long:
// what is in the keys beside them is for people, and the evidence for when
// somebody asks.

// appendHistory encodes a sentence's history; s is nil if it is forgotten.
func appendHistory(b []byte, k sentenceKey, s *sentence, ahead int64) []byte {
	b = appendText(b, k.storeKey())
	if s == nil {
		return b
	}
	fleet := *s
	fleet.since, fleet.evidence = s.since+ahead, ""
	for _, t := range []*int64{&fleet.until, &fleet.forget} {
		if *t != forever {
			*t += ahead
		}
	}
	return fleet.encode(b)
}

// readHistory reads the history of a field of a key. Whatever the store holds,
// it is that of a sentence that this program could have made, or there is an
// error.
func readHistory(name, field string, version stamp, b []byte, ahead int64, intern func([]byte) string) (*heardSentence, error) {
	d := decoder{b: b}
	storeKey := d.take(d.upTo(maxStoreKey))
	if d.bad || !version.sane() {
		return nil, errRecord
	}
	h := &heardSentence{s: &sentence{}, version: version, forgotten: len(d.b) == 0}
	s := h.s
	var err error
	if h.forgotten {
		s.sentenceKey, err = decodeSentenceKey(storeKey, intern)
	} else {
		err = s.decode(storeKey, d.b, intern)
	}
	if err != nil {
		return nil, err
	}
	if !saneKey(s.key) || sentenceName(s.sentenceKey) != name || sentenceField(s.sentenceKey) != field {
		return nil, errors.New("not what its key says")
	}
	if h.forgotten {
		return h, nil
	}
	if s.evidence != "" || s.score < -maxScore || s.score > maxScore {
		return nil, errors.New("with figures out of range")
	}
	for _, t := range []*int64{&s.since, &s.until, &s.forget} {
		if *t != forever {
			*t -= ahead
		}
	}
	return h, nil
}

const (
	// maxStoreKey bounds a sentence's own key in a history, in bytes.
	maxStoreKey = 1024
	maxScore    = milli(1e12)
)

// saneKey tells whether a sentence can be about a key.
func saneKey(k key) bool {
	login := k.login != "" && len(k.login) <= protocol.MaxIdentity
	net := validPrefix(k.prefix) && k.prefix.Bits() >= MinBanBits
	switch k.kind {
	case byLogin:
		return login && !k.prefix.IsValid()
	case byPair:
		return login && net
	}
	return net && k.login == ""
}

// A sharedBan is a sentence in force as people read it in the store, as JSON.
// Of it this program reads the events, when somebody asks for the evidence.
type sharedBan struct {
	Prefix netip.Prefix `json:"prefix,omitzero"`
	Login  string       `json:"login,omitempty"`
	Rule   string       `json:"rule"`
	Reason string       `json:"reason,omitempty"`
	Limit  string       `json:"limit,omitempty"`
	Since  time.Time    `json:"since"`
	// Until is when it ends; absent: never.
	Until time.Time `json:"until,omitzero"`
	Count int       `json:"count"`
	Score float64   `json:"score,omitempty"`
	Soft  bool      `json:"soft,omitempty"`
	// Node is the one that decided it.
	Node   string   `json:"node,omitempty"`
	Events []Scored `json:"events,omitempty"`
}

// shareBan makes the record of a sentence.
func shareBan(s *sentence, node string, version, ahead int64) sharedRecord {
	r := sharedRecord{
		Name: sentenceName(s.sentenceKey), Field: sentenceField(s.sentenceKey), Version: version,
		Until: fleetMilli(s.until, ahead), Forget: fleetMilli(s.forget, ahead),
		History: appendHistory(nil, s.sentenceKey, s, ahead),
	}
	if s.active {
		r.Value = mustJSON(sharedBan{
			Prefix: s.key.prefix, Login: s.key.login, Rule: s.rule, Reason: s.reason, Limit: s.limit,
			Since: fleetTime(s.since, ahead), Until: fleetTime(s.until, ahead),
			Count: int(s.repeats), Score: s.score.float(), Soft: s.soft, Node: node, Events: s.events(),
		})
	}
	return r
}

// shareRemoval makes the record that a sentence is gone with its history.
func shareRemoval(k sentenceKey, version int64) sharedRecord {
	return sharedRecord{
		Name: sentenceName(k), Field: sentenceField(k), Version: version, History: appendHistory(nil, k, nil, 0),
		Forget: version + removedFor.Milliseconds(),
	}
}

// readEvidence gives the events of a ban in the store, encoded. What makes no
// sense is none.
func readEvidence(text string) string {
	var b sharedBan
	if text == "" || len(text) > maxSharedValue || json.Unmarshal([]byte(text), &b) != nil || len(b.Events) > banEvidence+1 {
		return ""
	}
	for i := range b.Events {
		if p := b.Events[i].Points; math.IsNaN(p) || math.Abs(p) > maxScore.float() {
			return ""
		}
	}
	return encodeEvidence(b.Events)
}

func fleetTime(at, ahead int64) time.Time {
	if at == forever {
		return time.Time{}
	}
	return time.UnixMilli(at + ahead).UTC()
}

func fleetMilli(at, ahead int64) int64 {
	if at == forever {
		return 0
	}
	return at + ahead
}
