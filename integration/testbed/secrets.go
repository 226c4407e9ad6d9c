package testbed

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Secrets makes passwords and remembers them, so that what a proxy leaves
// behind can be searched for them.
type Secrets struct {
	mu   sync.Mutex
	seen map[string]bool
}

// New makes a password that says what it is for and looks like nothing else
// that a log or a store could hold.
func (s *Secrets) New(purpose string) string {
	return s.Note("Xq7-" + purpose + "-w9Zk")
}

// Note remembers a password that was made elsewhere, and returns it.
func (s *Secrets) Note(secret string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	s.seen[secret] = true
	return secret
}

// A needle is one spelling of a secret.
type needle struct {
	secret string
	text   []byte
}

func (s *Secrets) needles() []needle {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []needle
	for secret := range s.seen {
		all = append(all, needle{secret, []byte(secret)},
			needle{secret, []byte(hex.EncodeToString([]byte(secret)))})
		for shift := range 3 {
			all = append(all, needle{secret, []byte(base64Core(secret, shift))})
		}
	}
	return all
}

// base64Core gives the part of a secret's base64 form that is the same
// whatever surrounds the secret, when shift bytes (mod 3) come before it. A
// PLAIN response has the password behind two names.
func base64Core(secret string, shift int) string {
	text := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", shift) + secret))
	first := (shift*8 + 5) / 6
	last := (shift + len(secret)) * 8 / 6
	return text[first:last]
}

// Find searches text for all secrets and returns those that are in it, each
// with a few bytes from before it.
func (s *Secrets) Find(name string, text []byte) []string {
	return find(s.needles(), name, text)
}

func find(needles []needle, name string, text []byte) []string {
	var found []string
	for _, n := range needles {
		if i := bytes.Index(text, n.text); i >= 0 {
			found = append(found, fmt.Sprintf("%s holds %q at byte %d, after %q",
				name, n.secret, i, text[max(0, i-60):i]))
		}
	}
	return found
}

// FindInFiles searches all files under dir, but not those named in except.
func (s *Secrets) FindInFiles(dir string, except ...string) ([]string, error) {
	needles := s.needles()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() || slices.Contains(except, d.Name()) {
			return nil
		}
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil // a temporary file that is gone again
		}
		if err != nil {
			return err
		}
		found = append(found, find(needles, path, text)...)
		return nil
	})
	return found, err
}
