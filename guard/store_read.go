package guard

import (
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"
)

// A store that is opened is read by one goroutine, which goes from page to page,
// and by others, which check what it finds and take it. Of a million bans that
// takes little more than half the time.

// readBatch is how many records are handed on at a time.
const readBatch = 512

// readAll gives every sound record to into, bans to that many takers at once,
// and tells if there was any other. A bucket that cannot be read does not keep
// the others from it.
func readAll(db *bbolt.DB, into taker, takers int) error {
	var damage error
	for _, bucket := range buckets {
		n := 1
		if bucket == bucketBans {
			n = takers
		}
		if err := readBucket(db, bucket, into, n); err != nil {
			damage = errors.Join(damage, fmt.Errorf("%s: %w", bucket, err))
		}
	}
	return damage
}

func readBucket(db *bbolt.DB, bucket string, into taker, takers int) (err error) {
	defer recoverDamage(&err)()
	return db.View(func(tx *bbolt.Tx) (err error) {
		records := tx.Bucket([]byte(bucket))
		if records == nil {
			return nil
		}
		r := newBucketReader(bucket, into, takers)
		// What is found lies in the file's memory map, which the transaction
		// keeps: it does not end before all is taken, whatever happens.
		defer func() { err = errors.Join(err, r.wait()) }()
		into.expect(bucket, records.Stats().KeyN)
		return r.read(records)
	})
}

// A bucketReader hands a bucket's records on.
type bucketReader struct {
	bucket string
	into   taker
	found  chan []pair // not yet checked
	spare  chan []pair
	takers sync.WaitGroup

	mu     sync.Mutex
	broken int
	damage error
}

func newBucketReader(bucket string, into taker, takers int) *bucketReader {
	r := &bucketReader{bucket: bucket, into: into, found: make(chan []pair, takers), spare: make(chan []pair, 2*takers)}
	for range cap(r.spare) {
		r.spare <- make([]pair, 0, readBatch)
	}
	for range takers {
		r.takers.Go(r.takeAll)
	}
	return r
}

// read goes through the bucket.
func (r *bucketReader) read(records *bbolt.Bucket) error {
	batch := <-r.spare
	err := records.ForEach(func(k, v []byte) error {
		if batch = append(batch, pair{k, v}); len(batch) == readBatch {
			r.found <- batch
			batch = <-r.spare
		}
		return nil
	})
	r.found <- batch
	return err
}

// wait waits until all is taken, and tells what was wrong with it.
func (r *bucketReader) wait() error {
	close(r.found)
	r.takers.Wait()
	if r.broken > 0 {
		return errors.Join(r.damage, fmt.Errorf("%d records fail their checksum", r.broken))
	}
	return r.damage
}

// takeAll checks and takes what is found.
func (r *bucketReader) takeAll() {
	for batch := range r.found {
		broken, err := r.take(batch)
		r.mu.Lock()
		r.broken += broken
		r.damage = errors.Join(r.damage, err)
		r.mu.Unlock()
		r.spare <- batch[:0]
	}
}

// take takes those of a batch that are sound. To look at one may fault, if its
// page is not there.
func (r *bucketReader) take(batch []pair) (broken int, err error) {
	defer recoverDamage(&err)()
	sound := batch[:0]
	for _, p := range batch {
		value, ok := unseal(r.bucket, p.key, p.value)
		if !ok {
			broken++
			continue
		}
		sound = append(sound, pair{p.key, value})
	}
	r.into.take(r.bucket, sound)
	return broken, nil
}
