package testbed

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A User has a mailbox on both servers.
type User struct {
	Login    string
	Password string
}

// A Bed is a real Postfix and a real Dovecot with their users, shared by all
// tests of a run.
type Bed struct {
	Postfix *Postfix
	Dovecot *Dovecot

	// Alice and Bob are for tests that send and read mail. Users are fifty
	// more, for tests that need somebody of their own: see User.
	Alice, Bob User
	Users      []User

	CA      *Authority
	Secrets *Secrets

	dir  string
	root string
	// bin is the program, and clockBin the one with a clock that tests set.
	bin, clockBin binary
}

// Start installs what is missing and starts the servers.
func Start() (*Bed, error) {
	if err := Install(); err != nil {
		return nil, err
	}
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	// Short, because names of Unix sockets are; passable for the servers'
	// own users, hence the mode.
	dir, err := os.MkdirTemp("", "reeve")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	b := &Bed{dir: dir, root: root, Secrets: &Secrets{}}
	if err := b.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the servers (their files are in %s): %w", dir, err), b.stopServers())
	}
	return b, nil
}

func (b *Bed) start() error {
	var err error
	if b.CA, err = NewAuthority(b.dir); err != nil {
		return err
	}
	b.Alice = User{"alice@example.test", b.Secrets.New("alice")}
	b.Bob = User{"bob@example.test", b.Secrets.New("bob")}
	for i := range 50 {
		b.Users = append(b.Users, User{
			fmt.Sprintf("user%02d@example.test", i+1), b.Secrets.New(fmt.Sprintf("user%02d", i+1)),
		})
	}
	users := append([]User{b.Alice, b.Bob}, b.Users...)

	ports, err := freePorts(15)
	if err != nil {
		return err
	}
	if b.Postfix, err = startPostfix(filepath.Join(b.dir, "postfix"), b.root, ports[:7], users, b.CA); err != nil {
		return err
	}
	// Postfix makes the directory for the sockets between the two.
	queue := filepath.Join(b.dir, "postfix/queue")
	if !await(patience, func() bool { return exists(filepath.Join(queue, "private")) || b.Postfix.proc.ended() }) {
		return fmt.Errorf("postfix made no %s/private", queue)
	}
	setup := DovecotSetup{Queue: queue}
	if b.Dovecot, err = startDovecot(filepath.Join(b.dir, "dovecot"), b.root, ports[7:], users, b.CA, setup); err != nil {
		return err
	}
	return b.awaitServers()
}

// awaitServers waits until both servers take connections.
func (b *Bed) awaitServers() error {
	if err := awaitPorts(b.Postfix.proc, b.Postfix.ports()); err != nil {
		return fmt.Errorf("postfix: %w\n%s", err, lastLines(b.Postfix.Log.Text(), 20))
	}
	if err := awaitPorts(b.Dovecot.proc, b.Dovecot.ports()); err != nil {
		return fmt.Errorf("dovecot: %w\n%s", err, lastLines(b.Dovecot.Log.Text(), 20))
	}
	return nil
}

// awaitPorts waits until all ports take connections: a server opens them one
// after the other.
func awaitPorts(p *process, ports []int) error {
	for _, port := range ports {
		await(patience, func() bool { return p.ended() || accepts(port) })
		if p.ended() {
			return fmt.Errorf("ended at once: %v", p.err)
		}
		if !accepts(port) {
			return fmt.Errorf("port %d takes no connection", port)
		}
	}
	return nil
}

func accepts(port int) bool {
	conn, err := net.DialTimeout("tcp", loopback(port), time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// NewDovecot starts another Dovecot with the same users for one test.
func (b *Bed) NewDovecot(t testing.TB, setup DovecotSetup) *Dovecot {
	t.Helper()
	dir := b.TempDir(t)
	ports, err := freePorts(8)
	if err != nil {
		t.Fatal(err)
	}
	users := append([]User{b.Alice, b.Bob}, b.Users...)
	d, err := startDovecot(dir, b.root, ports, users, b.CA, setup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ignoreExit(d.stop()); err != nil {
			t.Errorf("stop dovecot: %v", err)
		}
	})
	if err := awaitPorts(d.proc, d.ports()); err != nil {
		t.Fatalf("dovecot: %v\n%s", err, d.Log.Text())
	}
	return d
}

// TempDir makes a directory with a short name that servers' users may pass. It
// is removed after the test, but kept if the test fails.
func (b *Bed) TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(b.dir, "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("files are kept in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return dir
}

// Close stops the servers. With keep, their files stay for somebody to read.
func (b *Bed) Close(keep bool) error {
	err := b.stopServers()
	if keep {
		fmt.Printf("the servers' files are kept in %s\n", b.dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

func (b *Bed) stopServers() error {
	var errs []error
	if b.Postfix != nil && b.Postfix.proc != nil {
		errs = append(errs, ignoreExit(b.Postfix.stop()))
	}
	if b.Dovecot != nil && b.Dovecot.proc != nil {
		errs = append(errs, ignoreExit(b.Dovecot.stop()))
	}
	return errors.Join(errs...)
}
