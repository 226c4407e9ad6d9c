package guard

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A guessHash is a keyed hash of a guess: identities, secret and network. It
// stays in memory.
type guessHash [sha256.Size]byte

// A guess is what is known of a credential after its secret is gone.
type guess struct {
	// hash is the zero value where there is no secret to compare.
	hash guessHash
	// value tells guesses apart in a window: 16 bits of a keyed hash of the
	// secret, which is all that is ever stored of it, and 16 of the
	// identities. 0: the guess always counts.
	value uint32
}

// same tells whether the guess can be compared.
func (g *guess) same() bool { return g.value != 0 }

// print gives the 16 bits for evidence.
func (g *guess) print() string {
	if !g.same() {
		return ""
	}
	return printGuess(uint16(g.value))
}

func printGuess(bits uint16) string { return fmt.Sprintf("%04x", bits) }

// hashGuess hashes a guess with the guard's key.
func (g *Guard) hashGuess(identities []string, secret []byte, net netip.Prefix) guess {
	if secret == nil || len(identities) == 0 {
		return guess{}
	}
	mac := g.mac()
	defer g.macs.Put(mac)
	for _, id := range identities {
		mac.text = append(append(mac.text[:0], id...), 0)
		mac.Write(mac.text)
	}
	ids := binary.BigEndian.Uint16(mac.Sum(mac.sum[:0]))
	mac.Write(secret)
	both := binary.BigEndian.Uint16(mac.Sum(mac.sum[:0]))
	mac.text = net.AppendTo(append(mac.text[:0], 0))
	mac.Write(mac.text)
	out := guess{value: max(uint32(ids)<<16|uint32(both), 1)}
	copy(out.hash[:], mac.Sum(mac.sum[:0]))
	mac.Reset() // nothing of the secret stays in the pool
	return out
}

// mac gives a hash with the guard's key, to be put back into macs.
func (g *Guard) mac() *keyedHash {
	mac, _ := g.macs.Get().(*keyedHash)
	if mac == nil {
		mac = &keyedHash{Hash: hmac.New(sha256.New, g.hashKey)}
	}
	mac.Reset()
	return mac
}

// at gives the guess's value in the windows of a login, where the same guess
// from another network is another one.
func (g *guess) at(net netip.Prefix) uint32 {
	if !g.same() {
		return 0
	}
	var room [64]byte
	return mix(g.value, net.AppendTo(room[:0]))
}

// mix gives a distinct value, never 0, of a text.
func mix(seed uint32, text []byte) uint32 {
	h := fnv.New32a()
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], seed)
	h.Write(b[:])
	h.Write(text)
	return max(h.Sum32(), 1)
}

// distinct gives the value by which a login or recipient is counted once. It is
// keyed: who could find names with one value would try them all for the price
// of one.
func (g *Guard) distinct(text string) uint32 {
	mac := g.mac()
	defer g.macs.Put(mac)
	mac.text = append(append(mac.text[:0], "distinct\x00"...), text...)
	mac.Write(mac.text)
	return max(binary.BigEndian.Uint32(mac.Sum(mac.sum[:0])), 1)
}

// A keyedHash is a hash with the guard's key and the room that it works in.
// They are used again: to make one costs more than to hash a name.
type keyedHash struct {
	hash.Hash
	text []byte
	sum  [sha256.Size]byte
}

// prepareStore makes the store's directory, and gives the key that guesses are
// hashed with.
func prepareStore(c StoreConfig) ([]byte, error) {
	if c.Kind == "embedded" || c.Kind == "valkey" {
		if err := os.MkdirAll(c.Path, 0o700); err != nil {
			return nil, fmt.Errorf("store.path: %w", err)
		}
	}
	return guessKey(c)
}

// guessKey reads the key that guesses are hashed with, making it if need be.
func guessKey(c StoreConfig) ([]byte, error) {
	path := c.GuessKey
	switch {
	case path == "" && c.Kind != "embedded" && c.Kind != "valkey":
		return newGuessKey(), nil
	case path == "":
		path = filepath.Join(c.Path, "guess.key")
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		data = newGuessKey()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return nil, fmt.Errorf("store.guess-key: %w", err)
		}
		return data, nil
	}
	if err != nil {
		return nil, fmt.Errorf("store.guess-key: %w", err)
	}
	if len(data) < 32 {
		return nil, fmt.Errorf("store.guess-key: %s has %d bytes; it needs 32 (remove it to have a new one made)", path, len(data))
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("store.guess-key: %s may be read by others; chmod 600 it", path)
	}
	return data, nil
}

func newGuessKey() []byte {
	k := make([]byte, 32)
	rand.Read(k) // never fails, see crypto/rand
	return k
}

// guesses remembers guesses: those in flight, those that failed of late, and
// those that succeeded.
type guesses struct {
	mu   sync.Mutex
	m    map[guessHash]*guessState
	most int // see slim
}

type guessState struct {
	seen int64
	// failed is set after a failure, with the address that it was scored at.
	failed bool
	at     netip.Prefix
	// sent is when it last went to the server.
	sent int64
	// flight is set while it is with the server; closed when it is settled.
	flight chan struct{}
	// good guesses need not wait for each other.
	good bool
}

func newGuesses() *guesses { return &guesses{m: make(map[guessHash]*guessState)} }

// guessStanding is what begin says about a guess.
type guessStanding uint8

const (
	guessNew      guessStanding = iota // it is in flight now
	guessInFlight                      // wait for the one that is
	guessRepeated                      // it failed a moment ago
	guessAgain                         // it failed before: it goes, and scores nothing more
)

// begin marks a guess as in flight, unless it need not go at all.
func (gs *guesses) begin(g *guess, addr netip.Prefix, now int64, answer time.Duration) (guessStanding, <-chan struct{}) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	s := gs.m[g.hash]
	if s == nil {
		if len(gs.m) >= maxGuesses {
			gs.evictLocked(now)
		}
		s = &guessState{}
		gs.m[g.hash] = s
	}
	s.seen = now
	switch {
	case s.failed && now-s.sent < answer.Milliseconds():
		return guessRepeated, nil
	case s.flight != nil && !s.good:
		return guessInFlight, s.flight
	case s.flight == nil:
		s.flight = make(chan struct{})
	}
	if s.failed && s.at != addr && now-s.sent < guessMemory.Milliseconds() {
		return guessAgain, nil
	}
	return guessNew, nil
}

// end says what came of a guess in flight: success, failure, or neither.
func (gs *guesses) end(g *guess, addr netip.Prefix, now int64, good, failed bool) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	s := gs.m[g.hash]
	if s == nil {
		return
	}
	if failed && !s.failed {
		s.at = addr
	}
	if good || failed {
		s.good, s.failed, s.sent = good, failed, now
	}
	if s.flight != nil {
		close(s.flight)
		s.flight = nil
	}
}

// forget drops what is known of the guesses from within a network, or of all.
func (gs *guesses) forget(p netip.Prefix, all bool) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	for h, s := range gs.m {
		if s.flight == nil && (all || p.Overlaps(s.at)) {
			delete(gs.m, h)
		}
	}
}

// sweep forgets guesses that are too old to matter.
func (gs *guesses) sweep(now int64) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	for h, s := range gs.m {
		if s.flight == nil && now-s.seen > guessMemory.Milliseconds() {
			delete(gs.m, h)
		}
	}
	gs.m = slim(gs.m, &gs.most)
}

// evictLocked forgets the longest unseen of a few.
func (gs *guesses) evictLocked(now int64) {
	var victim guessHash
	oldest, n := now+1, 0
	for h, s := range gs.m {
		if s.flight == nil && s.seen < oldest {
			victim, oldest = h, s.seen
		}
		if n++; n == evictSample {
			break
		}
	}
	delete(gs.m, victim)
}
