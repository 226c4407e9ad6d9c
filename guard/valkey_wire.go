package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
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
	// time in milliseconds, or a little more. Of equal ones the larger Node
	// wins, the number of the node that made the change, see [versions].
	Version int64  `json:"v"`
	Node    uint32 `json:"d,omitempty"`
	// Value is what the field holds, for people; "" takes it away. History is
	// what is remembered of it, and what nodes go by; of a place there is none.
	Value   string `json:"j,omitempty"`
	History []byte `json:"h,omitempty"`
	// Until and Forget are when the key and its history end, in milliseconds
	// of the fleet's time; 0 is never.
	Until  int64 `json:"u,omitempty"`
	Forget int64 `json:"x,omitempty"`
}

func (r *sharedRecord) stamp() stamp { return stamp{at: r.Version, node: r.Node} }

// removedFor is how long it is remembered that a ban without an end was taken
// back, so that no node that was away brings it back.
const removedFor = 90 * 24 * time.Hour

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("guard: encode %T: %v", v, err)) // plain data always marshals
	}
	return string(b)
}

// maxSharedValue bounds what is read of one value, in bytes.
const maxSharedValue = 256 << 10

// sharedAllow is an allow entry in the store.
type sharedAllow struct {
	Allowed
	// Node is the one that was told to.
	Node string `json:"node,omitempty"`
}

const (
	namePlaces     = "places."
	nameAllowIP    = "allowed-ip."
	nameAllowLogin = "allowed-login."
	// nameForgive is no key: the stream tells other nodes to forgive.
	nameForgive = "forgive"
	fieldAllow  = "command"
	// forgottenAllow is the history of an allow entry that was taken away.
	forgottenAllow = "{}"
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
		r.History = []byte(forgottenAllow)
		return r
	}
	e := sharedAllow{*a, node}
	if !a.Until.IsZero() {
		e.Until = a.Until.Add(time.Duration(ahead) * time.Millisecond).UTC()
		r.Until = e.Until.UnixMilli()
	}
	r.Value = mustJSON(e)
	r.History = []byte(r.Value)
	return r
}

// readAllow reads an allow entry of the store.
func readAllow(name string, text []byte, ahead int64) (a Allowed, err error) {
	var e sharedAllow
	if len(text) > maxSharedValue {
		return a, errors.New("too long")
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return a, err
	}
	a = e.Allowed
	a.Source = "command"
	if (a.Login == "") == !a.Prefix.IsValid() || a.Prefix.IsValid() && !validPrefix(a.Prefix) || len(a.Login) > protocol.MaxIdentity ||
		len(a.Reason) > 4096 || allowName(allowKey(a)) != name {
		return a, errors.New("not what its key says")
	}
	if !a.Until.IsZero() {
		if !saneMoment(a.Until.UnixMilli()) {
			return a, errors.New("a time out of range")
		}
		a.Until = a.Until.Add(-time.Duration(ahead) * time.Millisecond)
	}
	return a, nil
}
