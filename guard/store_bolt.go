package guard

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The embedded store is bbolt: one file, pure Go, no dependency but x/sys,
// maintained by the etcd project, whose data are in it all over the world. A
// durable write takes it about a millisecond, and its B+tree needs no recovery
// after kill -9. Faster stores (pebble, a journal of our own) add megabytes or
// a format of our own; nothing here is fast enough to need them. Its lock on
// the file is exclusive: of two processes the second waits, then says so.

// storeFile is the store's name in its directory.
const storeFile = "mailreeve.db"

// lockWait is how long to wait for another process to let go of the file. A
// service manager starts the new process after the old one's end; the wait is
// for the moment in which the kernel takes the lock back. Whoever started a
// second one by mistake should not have to wait to be told.
const lockWait = time.Second

type boltBackend struct{ db *bbolt.DB }

// openBolt opens the store in a directory, which it makes if need be. Each
// record's checksum is checked on the way; a damaged file is put aside under a
// name that tells when, and what could be read goes into a new one.
func openBolt(dir string, into taker) (*boltBackend, string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", fmt.Errorf("store.path: %w", err)
	}
	path := filepath.Join(dir, storeFile)
	db, err := openFile(path)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, "", fmt.Errorf("store: %s is in use by another process; stop it, or give this one another store.path", path)
	}
	// The system's own refusals (permissions, a full or a read-only disk) say
	// nothing about what is in the file.
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return nil, "", fmt.Errorf("store.path: %w", err)
	}
	var damage error
	if err != nil {
		damage = err
	} else if damage = readAll(db, into, runtime.GOMAXPROCS(0)); damage == nil {
		return &boltBackend{db}, "", nil
	}
	return recoverBolt(db, path, damage, into)
}

// errEmpty is a file without a byte in it. bbolt would take it for a new one,
// but a file is only ever that when something has been lost.
var errEmpty = errors.New("the file is empty")

// openFile opens the file. bbolt may panic, or the memory map may fault, on a
// file that is cut short.
func openFile(path string) (db *bbolt.DB, err error) {
	defer recoverDamage(&err)()
	if info, err := os.Stat(path); err == nil && info.Size() == 0 {
		return nil, errEmpty
	}
	return bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
}

// recoverDamage turns a panic, or a fault in the memory map, into an error.
func recoverDamage(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if p := recover(); p != nil {
			*err = fmt.Errorf("damaged: %v", p)
		}
	}
}

// recoverBolt puts a damaged file aside and starts a new one with all that can
// be read of it, as it stands there. db is nil if the file cannot be opened.
func recoverBolt(db *bbolt.DB, path string, damage error, into taker) (*boltBackend, string, error) {
	saved := path + ".saved"
	os.Remove(saved) // of a recovery that was broken off
	next, err := openFile(saved)
	if err != nil {
		return nil, "", fmt.Errorf("store: %s is damaged (%v); making a new one: %w", path, damage, err)
	}
	c := &boltCopy{backend: &boltBackend{next}, into: into}
	if db != nil {
		readAll(db, c, 1) // what is wrong with it is known
		closeDamaged(db)
	}
	what := "all that it leads to was read"
	if lost, err := salvageBolt(path, c); err != nil {
		what = "nothing more can be read: " + err.Error()
	} else if lost > 0 {
		what = fmt.Sprintf("all but %d pages or records were read", lost)
	}
	aside := fmt.Sprintf("%s.damaged-%s", path, time.Now().UTC().Format("20060102T150405"))
	if err := errors.Join(c.flush(), next.Close()); err != nil {
		return nil, "", fmt.Errorf("store: %s is damaged (%v); saving what can be read into %s: %w", path, damage, saved, err)
	}
	if err := errors.Join(os.Rename(path, aside), os.Rename(saved, path)); err != nil {
		return nil, "", fmt.Errorf("store: %s is damaged (%v), and it cannot be put aside: %w", path, damage, err)
	}
	if next, err = openFile(path); err != nil {
		return nil, "", fmt.Errorf("store: %s was damaged and is now %s; opening the new one: %w", path, aside, err)
	}
	return &boltBackend{next}, fmt.Sprintf("%s was damaged (%v); it is kept as %s; %s", path, damage, aside, what), nil
}

// A boltCopy writes what it is given into another file, many at a time.
type boltCopy struct {
	backend *boltBackend
	into    taker
	records []record
	err     error
}

// copyBatch is how many records are written at a time.
const copyBatch = 10_000

func (c *boltCopy) expect(bucket string, n int) { c.into.expect(bucket, n) }

func (c *boltCopy) take(bucket string, list []pair) {
	c.into.take(bucket, list)
	for _, p := range list {
		c.records = append(c.records, record{bucket: bucket, key: string(p.key), value: bytes.Clone(p.value)})
	}
	if len(c.records) >= copyBatch {
		c.flush()
	}
}

func (c *boltCopy) flush() error {
	if c.err == nil {
		c.err = c.backend.write(c.records)
	}
	c.records = c.records[:0]
	return c.err
}

// closeDamaged closes a database whose pages may not be readable.
func closeDamaged(db *bbolt.DB) {
	var err error
	defer recoverDamage(&err)()
	db.Close()
}

func (b *boltBackend) write(records []record) (err error) {
	// In order, for bbolt splits its pages only at the end: in any other each
	// record would move half of those before it, and a hundred thousand that
	// another node's bans may be would take minutes.
	slices.SortFunc(records, func(a, b record) int {
		return cmp.Or(strings.Compare(a.bucket, b.bucket), strings.Compare(a.key, b.key))
	})
	return b.db.Update(func(tx *bbolt.Tx) error {
		for _, r := range records {
			bucket, err := tx.CreateBucketIfNotExists([]byte(r.bucket))
			if err != nil {
				return err
			}
			if r.value == nil {
				err = bucket.Delete([]byte(r.key))
			} else {
				err = bucket.Put([]byte(r.key), seal(r.bucket, []byte(r.key), r.value))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// read calls f with the value of each key in turn, nil if there is none. The
// value is only valid during the call.
func (b *boltBackend) read(bucket string, keys []string, f func(i int, value []byte)) (err error) {
	defer recoverDamage(&err)()
	return b.db.View(func(tx *bbolt.Tx) error {
		records := tx.Bucket([]byte(bucket))
		for i, k := range keys {
			if records == nil {
				f(i, nil)
				continue
			}
			sealed := records.Get([]byte(k))
			value, ok := unseal(bucket, []byte(k), sealed)
			if !ok && sealed != nil {
				return fmt.Errorf("the record of %q fails its checksum", k)
			}
			f(i, value)
		}
		return nil
	})
}

func (b *boltBackend) close() error { return b.db.Close() }

// seal puts a checksum before a value: bbolt has none on its pages. It is over
// where the value is as well, so that none is taken for another's.
func seal(bucket string, key, value []byte) []byte {
	out := make([]byte, 4, 4+len(value))
	binary.BigEndian.PutUint32(out, checksum(bucket, key, value))
	return append(out, value...)
}

// unseal checks a value.
func unseal(bucket string, key, sealed []byte) ([]byte, bool) {
	if len(sealed) < 4 {
		return nil, false
	}
	sum, value := binary.BigEndian.Uint32(sealed), sealed[4:]
	return value, sum == checksum(bucket, key, value)
}

func checksum(bucket string, key, value []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Checksum([]byte(bucket), table)
	return crc32.Update(crc32.Update(sum, table, key), table, value)
}
