package testbed

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Put lays a message into a user's mailbox, past all servers.
func (b *Bed) Put(t testing.TB, login string, message []byte) {
	t.Helper()
	maildir := b.maildir(login)
	for _, sub := range []string{"", "tmp", "new", "cur"} {
		dir := filepath.Join(maildir, sub)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, mailUser, mailUser); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Dir(maildir), mailUser, mailUser); err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp(filepath.Join(maildir, "new"), "put-")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(message); err != nil {
		t.Fatal(err)
	}
	if err := f.Chown(mailUser, mailUser); err != nil {
		t.Fatal(err)
	}
}

// AwaitMail waits until a message with that text is in a user's mailbox and
// returns it as Dovecot stored it: with bare newlines.
func (b *Bed) AwaitMail(t testing.TB, login, text string) []byte {
	t.Helper()
	var found []byte
	Eventually(t, fmt.Sprintf("a message with %q for %s", text, login), func() bool {
		found = b.findMail(login, text)
		return found != nil
	})
	return found
}

func (b *Bed) findMail(login, text string) []byte {
	for _, sub := range []string{"new", "cur"} {
		names, _ := filepath.Glob(filepath.Join(b.maildir(login), sub, "*"))
		for _, name := range names {
			message, err := os.ReadFile(name)
			if err == nil && bytes.Contains(message, []byte(text)) {
				return message
			}
		}
	}
	return nil
}

func (b *Bed) maildir(login string) string {
	return filepath.Join(b.dir, "dovecot/mail", login, "Maildir")
}
