package guard

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
)

// Keys of the shared store. They are for people to read, and they are spread
// over a Cluster's hash slots by what is in braces: an address and its network
// share a slot, and so do a login and the login at its places, so that one
// attempt mostly takes two calls there, and on a single server one.
//
//	blocked-ip.192.0.2.1                 a hash: scope → ban. Gone when the ban ends
//	guarded-login.alice@example.test     the same of a guarded login
//	refused-ip.192.0.2.0/24              the same of a network whose strangers may not log in
//	delayed.192.0.2.1                    the same of a rule with consequence "delay"
//	allowed-ip.…, allowed-login.…        allow entries by command
//	places.alice@example.test            a hash: address → when the login last succeeded there
//	history.{<one of the above>}         what there was, for growth, and what was taken back
//	points-ip.{192.0.2.0/24}.192.0.2.1   counters: what adds up, with evidence
//	points-net.{…}, points-login.{…}, points-pair.{…}
//	trickle.{alice@example.test}         the tickets of a guarded login
//	index.00 … index.63                  which of the lasting keys there are
//	changes                              a stream: what changed, for every node
//	beat.NODE.0 … beat.NODE.15           a node's signs of life, by which lost writes are noticed
type names struct{ prefix string }

// indexes is the number of index keys. A Cluster spreads them.
const indexes = 64

// counter gives the key of an entry of the ledger.
func (n names) counter(k key) string {
	switch k.kind {
	case byAddress:
		return n.prefix + "points-ip.{" + network(k.prefix.Addr()).String() + "}." + printPrefix(k.prefix)
	case byNetwork:
		return n.prefix + "points-net.{" + k.prefix.String() + "}"
	case byPair:
		return n.prefix + "points-pair.{" + escapeLogin(k.login) + "}." + printPrefix(k.prefix)
	}
	return n.prefix + "points-login.{" + escapeLogin(k.login) + "}"
}

// tag gives what decides a key's slot.
func tag(key string) string {
	if i := strings.IndexByte(key, '{'); i >= 0 {
		if j := strings.IndexByte(key[i+1:], '}'); j > 0 {
			return key[i+1 : i+1+j]
		}
	}
	return key
}

func (n names) trickle(login string) string { return n.prefix + "trickle.{" + escapeLogin(login) + "}" }
func (n names) changes() string             { return n.prefix + "changes" }
func (n names) beat(node string, i int) string {
	return fmt.Sprintf("%sbeat.%s.%d", n.prefix, node, i)
}

func (n names) history(name string) string { return n.prefix + "history.{" + n.prefix + name + "}" }

// index gives the index key that lists a lasting key.
func (n names) index(name string) string {
	return n.indexAt(int(mix(0, []byte(name)) % indexes))
}

func (n names) indexAt(i int) string { return fmt.Sprintf("%sindex.%02d", n.prefix, i) }

// escapeLogin writes a login so that it can be part of a key: it is an
// attacker's text. What is not a letter, a digit or harmless is %xx.
func escapeLogin(login string) string {
	var b strings.Builder
	for i := range len(login) {
		c := login[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("@.-_+=!#$&*^~:", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

// targetName gives what a sentence's key is called in the store.
func targetName(k key) string {
	switch k.kind {
	case byLogin:
		return escapeLogin(k.login)
	case byPair:
		return escapeLogin(k.login) + "," + printPrefix(k.prefix)
	}
	return printPrefix(k.prefix)
}

// sentenceName gives the name of a sentence's key, without the prefix.
func sentenceName(k sentenceKey) string {
	kind := [...]string{banned: "blocked-ip.", guarded: "guarded-login.", refused: "refused-ip.", delayed: "delayed."}[k.kind]
	return kind + targetName(k.key)
}

// sentenceField gives the field of a sentence in that key.
func sentenceField(k sentenceKey) string {
	field := k.scope
	if field == "" {
		field = "-"
	}
	if k.simulated {
		field += " (dry run)"
	}
	return field
}

// newID makes a name that no other step of any node has.
func newID() string { return fmt.Sprintf("%016x", rand.Uint64()) }

// validPrefix refuses what a hostile store may say a network is.
func validPrefix(p netip.Prefix) bool {
	return p.IsValid() && p == p.Masked() && !p.Addr().Is4In6() && p.Addr().Zone() == ""
}
