package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mailreeve/protocol"
)

// A sharedRecord is a change on its way to the store: one field of one lasting
// key, and what the stream tells the other nodes of it.
type sharedRecord struct {
	// Name is the key without the prefix; Field is the field in it.
	Name  string `json:"n"`
	Field string `json:"f"`
	// Version orders changes of one field; the largest wins. It is the fleet's
	// time in milliseconds, or a little more, see [versions].
	Version int64 `json:"v"`
	// Value is what the field holds; "" takes it away. History is what is
	// remembered of it.
	Value   string `json:"j,omitempty"`
	History string `json:"h,omitempty"`
	// Until and Forget are when the key and its history end, in milliseconds
	// of the fleet's time; 0 is never.
	Until  int64 `json:"u,omitempty"`
	Forget int64 `json:"x,omitempty"`
}

// A sharedBan is a sentence in the store, as JSON.
type sharedBan struct {
	Kind   string       `json:"kind"`
	Key    string       `json:"key"`
	Prefix netip.Prefix `json:"prefix,omitzero"`
	Login  string       `json:"login,omitempty"`
	Scope  string       `json:"scope,omitempty"`
	Rule   string       `json:"rule"`
	Reason string       `json:"reason,omitempty"`
	Limit  string       `json:"limit,omitempty"`
	Since  time.Time    `json:"since"`
	// Until is when it ends, Forget when its history does; absent: never.
	Until     time.Time `json:"until,omitzero"`
	Forget    time.Time `json:"forget,omitzero"`
	Count     int       `json:"count"`
	Score     float64   `json:"score,omitempty"`
	Soft      bool      `json:"soft,omitempty"`
	Manual    bool      `json:"manual,omitempty"`
	Simulated bool      `json:"simulated,omitempty"`
	// Lifted: it was taken back. Forgotten: its history as well.
	Lifted    bool   `json:"lifted,omitempty"`
	Forgotten bool   `json:"forgotten,omitempty"`
	Node      string `json:"node,omitempty"`
	// Version is that of the record, see [versions].
	Version int64 `json:"version"`
	// Events are the evidence; they are not part of the history.
	Events []Scored `json:"events,omitempty"`
}

// removedFor is how long it is remembered that a ban without an end was taken
// back, so that no node that was away brings it back.
const removedFor = 90 * 24 * time.Hour

// shareBan makes the record of a sentence.
func shareBan(s *sentence, node string, version, ahead int64) sharedRecord {
	b := sharedBan{
		Kind: s.kind.String(), Key: s.key.kind.String(), Prefix: s.key.prefix, Login: s.key.login, Scope: s.scope,
		Rule: s.rule, Reason: s.reason, Limit: s.limit, Since: fleetTime(s.since, ahead), Until: fleetTime(s.until, ahead),
		Forget: fleetTime(s.forget, ahead), Count: int(s.repeats), Score: s.score.float(), Soft: s.soft, Manual: s.manual,
		Simulated: s.simulated, Lifted: !s.active, Node: node, Version: version,
	}
	r := sharedRecord{
		Name: sentenceName(s.sentenceKey), Field: sentenceField(s.sentenceKey), Version: version,
		Until: fleetMilli(s.until, ahead), Forget: fleetMilli(s.forget, ahead),
	}
	r.History = mustJSON(b)
	if !s.active {
		return r
	}
	b.Events = s.events()
	r.Value = mustJSON(b)
	return r
}

// shareRemoval makes the record that a sentence is gone with its history.
func shareRemoval(k sentenceKey, node string, version int64) sharedRecord {
	b := sharedBan{
		Kind: k.kind.String(), Key: k.key.kind.String(), Prefix: k.key.prefix, Login: k.key.login, Scope: k.scope,
		Simulated: k.simulated, Since: time.UnixMilli(version).UTC(), Lifted: true, Forgotten: true, Node: node,
		Version: version,
	}
	return sharedRecord{
		Name: sentenceName(k), Field: sentenceField(k), Version: version, History: mustJSON(b),
		Forget: version + removedFor.Milliseconds(),
	}
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

func ownMilli(t time.Time, ahead int64) int64 {
	if t.IsZero() {
		return forever
	}
	return t.UnixMilli() - ahead
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("guard: encode %T: %v", v, err)) // plain data always marshals
	}
	return string(b)
}

// maxSharedValue bounds what is read of one value, in bytes.
const maxSharedValue = 256 << 10

// readBan reads a ban that the store holds under a name. Whatever it holds, the
// ban is one that this program could have made, or there is an error.
func readBan(name, field, text string, ahead int64) (*heardSentence, error) {
	if len(text) > maxSharedValue {
		return nil, errors.New("too long")
	}
	var b sharedBan
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return nil, err
	}
	s := &sentence{
		cause: cause{b.Rule, b.Limit}, reason: b.Reason, since: ownMilli(b.Since, ahead), until: ownMilli(b.Until, ahead),
		forget: ownMilli(b.Forget, ahead), repeats: int32(b.Count), soft: b.Soft, manual: b.Manual, active: !b.Lifted, evidence: encodeEvidence(b.Events),
	}
	s.scope, s.simulated = b.Scope, b.Simulated
	s.key = key{prefix: b.Prefix, login: b.Login}
	kind := slices.Index(consequenceNames[1:], b.Kind)
	by := slices.Index(keyNames, b.Key)
	if kind < 0 || by < 0 {
		return nil, errors.New("of no known kind")
	}
	s.kind, s.key.kind = sentenceKind(kind), keyKind(by)
	if !saneKey(s.key) || sentenceName(s.sentenceKey) != name || sentenceField(s.sentenceKey) != field {
		return nil, errors.New("not what its key says")
	}
	if b.Since.IsZero() || b.Version <= 0 || b.Version > 1<<52 || s.since > s.until || s.until > s.forget && !b.Forgotten || b.Count < 0 || b.Count > math.MaxInt32 ||
		math.IsNaN(b.Score) || math.Abs(b.Score) > 1e9 || len(b.Scope) > 255 || len(b.Rule) > 255 || len(b.Limit) > 255 || len(b.Reason) > 4096 {
		return nil, errors.New("with figures out of range")
	}
	s.score = toMilli(b.Score)
	return &heardSentence{s: s, forgotten: b.Forgotten, version: b.Version}, nil
}

// saneKey tells whether a sentence can be about a key: nobody may ban
// everybody.
func saneKey(k key) bool {
	login := k.login != "" && len(k.login) <= protocol.MaxIdentity
	net := validPrefix(k.prefix) && k.prefix.Bits() > 0
	switch k.kind {
	case byLogin:
		return login && !k.prefix.IsValid()
	case byPair:
		return login && net
	}
	return net && k.login == ""
}

// sharedAllow is an allow entry in the store.
type sharedAllow struct {
	Allowed
	Node    string `json:"node,omitempty"`
	Version int64  `json:"version"`
}

const (
	namePlaces     = "places."
	nameAllowIP    = "allowed-ip."
	nameAllowLogin = "allowed-login."
	// nameForgive is no key: the stream tells other nodes to forgive.
	nameForgive = "forgive"
	fieldAllow  = "command"
)

func allowName(k string) string {
	if login, ok := strings.CutPrefix(k, "login "); ok {
		return nameAllowLogin + escapeLogin(login)
	}
	if p, err := netip.ParsePrefix(k); err == nil {
		return nameAllowIP + printPrefix(p)
	}
	return nameAllowIP + k
}

// shareAllow makes the record of an allow entry; nil takes it away.
func shareAllow(k string, a *Allowed, node string, version, ahead int64) sharedRecord {
	r := sharedRecord{Name: allowName(k), Field: fieldAllow, Version: version, Forget: version + removedFor.Milliseconds()}
	if a == nil {
		r.History = "{}"
		return r
	}
	e := sharedAllow{*a, node, version}
	if !a.Until.IsZero() {
		e.Until = a.Until.Add(time.Duration(ahead) * time.Millisecond).UTC()
		r.Until = e.Until.UnixMilli()
	}
	r.Value = mustJSON(e)
	r.History = r.Value
	return r
}

// readAllow reads an allow entry of the store.
func readAllow(name, text string, ahead int64) (a Allowed, version int64, err error) {
	var e sharedAllow
	if len(text) > maxSharedValue {
		return a, 0, errors.New("too long")
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return a, 0, err
	}
	a = e.Allowed
	a.Source = "command"
	if (a.Login == "") == !a.Prefix.IsValid() || a.Prefix.IsValid() && !validPrefix(a.Prefix) || len(a.Login) > protocol.MaxIdentity ||
		len(a.Reason) > 4096 || allowName(allowKey(a)) != name || e.Version <= 0 || e.Version > 1<<52 {
		return a, 0, errors.New("not what its key says")
	}
	if !a.Until.IsZero() {
		a.Until = a.Until.Add(-time.Duration(ahead) * time.Millisecond)
	}
	return a, e.Version, nil
}
