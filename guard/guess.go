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
	// identities, which [guesses] changes for one that would be taken for
	// another. 0: the guess always counts.
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
// of one. Of the hash nobody sees more than these bits, so it needs no HMAC, and
// most names fit into one block of it.
func (g *Guard) distinct(text string) uint32 {
	var room [sha256.BlockSize]byte
	sum := sha256.Sum256(append(append(room[:0], g.distinctKey[:]...), text...))
	return max(binary.BigEndian.Uint32(sum[:]), 1)
}

// deriveDistinctKey gives the key of distinct values.
func deriveDistinctKey(hashKey []byte) (k [16]byte) {
	mac := hmac.New(sha256.New, hashKey)
	mac.Write([]byte("distinct"))
	copy(k[:], mac.Sum(nil))
	return k
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
