package guard

import (
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Buckets of the store. A bucket's records are of one type; see codec.go.
const (
	bucketBans   = "bans"
	bucketMarks  = "counters"
	bucketPlaces = "places"
	bucketAllow  = "allow"
	// bucketTrickles are the networks that failed at a guarded login.
	bucketTrickles = "trickles"
	// bucketOutbox is what a shared store may not have been told, see [outbox].
	bucketOutbox = "outbox"
)

// buckets are all buckets, what matters most first.
var buckets = [...]string{bucketBans, bucketOutbox, bucketAllow, bucketPlaces, bucketTrickles, bucketMarks}

// A record is one key of the store. A nil value deletes it.
type record struct {
	bucket, key string
	value       []byte
}

// A backend keeps records. There is one per process.
type backend interface {
	// write makes the records durable, all or none.
	write([]record) error
	close() error
}

// A pair is a record's key and value in its bucket.
type pair struct{ key, value []byte }

// A taker takes every sound record that a store holds when it is opened. Of a
// damaged store it may be given a record twice.
type taker interface {
	// expect says about how many records of a bucket will come.
	expect(bucket string, n int)
	// take takes some. Keys and values are only valid during the call. Of bans
	// several calls may be made at once; other records come in order.
	take(bucket string, list []pair)
}

// openBackend opens what the configuration names; it is nil if nothing is kept.
// Every record that it holds is given to into first. recovered is not empty if a
// damaged store had to be put aside; it says where it is and what was saved.
func openBackend(c StoreConfig, into taker) (b *boltBackend, recovered string, err error) {
	switch c.Kind {
	case "memory", "":
		return nil, "", nil
	case "embedded", "valkey":
		return openBolt(c.Path, into)
	}
	return nil, "", fmt.Errorf("store.kind: %q is none of embedded, valkey, memory", c.Kind)
}

// A writer makes records durable in the background: what came while one batch
// was being written is the next batch. Of several values for one key only the
// last is written, so what waits is bounded by the number of keys.
type writer struct {
	backend backend
	// disk is the backend if what is in it can be read; nil without a store.
	disk *boltBackend
	log  *slog.Logger
	// share, unless nil, keeps what is put, and tells a fleet.
	share func([]record) <-chan struct{}
	wake  chan struct{}
	// again ends the pause after a failed try.
	again chan struct{}
	quit  chan struct{}
	done  chan struct{}

	mu      sync.Mutex
	pending map[[2]string][]byte
	writing map[[2]string][]byte // the batch on its way
	// bans are the bans' records where there is no store: somebody may ask why.
	bans    map[string][]byte
	written chan struct{}   // closed when what is pending now is durable
	failed  []chan struct{} // of batches that are pending again
	err     error           // of the last try
}

func newWriter(b backend, log *slog.Logger) *writer {
	w := &writer{
		backend: b,
		log:     log,
		wake:    make(chan struct{}, 1),
		again:   make(chan struct{}, 1),
		quit:    make(chan struct{}),
		done:    make(chan struct{}),
		pending: make(map[[2]string][]byte),
		written: make(chan struct{}),
	}
	if b == nil {
		close(w.done)
		w.bans = make(map[string][]byte)
	} else {
		go w.run()
	}
	return w
}

// put hands over what was decided here. The channel is closed once it is
// durable.
func (w *writer) put(records ...record) <-chan struct{} {
	if w.share != nil {
		return w.share(records)
	}
	return w.keep(records...)
}

// keep hands over what is to be written, and not to be shared. Without records
// the channel is that of what waits, closed if nothing does.
func (w *writer) keep(records ...record) <-chan struct{} {
	w.mu.Lock()
	if w.backend == nil || len(records)+len(w.pending)+len(w.writing) == 0 {
		w.hold(records)
		w.mu.Unlock()
		done := make(chan struct{})
		close(done)
		return done
	}
	for _, r := range records {
		w.pending[[2]string{r.bucket, r.key}] = r.value
	}
	written := w.written
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return written
}

// waits tells whether a record waits that no try has yet taken up.
func (w *writer) waits(r record) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.pending[[2]string{r.bucket, r.key}]
	return ok
}

// drop takes back records that have not been written.
func (w *writer) drop(records ...record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range records {
		delete(w.pending, [2]string{r.bucket, r.key})
	}
}

// hold remembers the bans among records.
func (w *writer) hold(records []record) {
	for _, r := range records {
		switch {
		case r.bucket != bucketBans:
		case r.value == nil:
			delete(w.bans, r.key)
		default:
			w.bans[r.key] = r.value
		}
	}
}

// read calls f with the value of each key as it is or will be in the store, nil
// if there is none. The order is any; the value is only valid during the call.
func (w *writer) read(bucket string, keys []string, f func(key string, value []byte)) error {
	var stored []string
	found := make(map[string][]byte)
	w.mu.Lock()
	for _, k := range keys {
		if v, ok := w.pending[[2]string{bucket, k}]; ok {
			found[k] = v
		} else if v, ok := w.writing[[2]string{bucket, k}]; ok {
			found[k] = v
		} else if w.disk == nil {
			found[k] = w.bans[k]
		} else {
			stored = append(stored, k)
		}
	}
	w.mu.Unlock()
	for k, v := range found {
		f(k, v)
	}
	if len(stored) == 0 {
		return nil
	}
	return w.disk.read(bucket, stored, func(i int, value []byte) { f(stored[i], value) })
}

// run writes until close.
func (w *writer) run() {
	defer close(w.done)
	for {
		select {
		case <-w.wake:
		case <-w.quit:
			w.flush()
			return
		}
		for !w.flush() {
			select {
			case <-time.After(writeAgain):
			case <-w.again:
			case <-w.quit:
				w.flush()
				return
			}
		}
	}
}

// writeAgain is the pause after a failed try.
const writeAgain = time.Second

// retry says that what failed may succeed now.
func (w *writer) retry() {
	select {
	case w.again <- struct{}{}:
	default:
	}
}

// flush writes what is pending and tells whether all of it is durable.
func (w *writer) flush() bool {
	w.mu.Lock()
	batch, written := w.pending, w.written
	if len(batch) == 0 {
		w.mu.Unlock()
		return true
	}
	w.pending, w.writing, w.written = make(map[[2]string][]byte), batch, make(chan struct{})
	w.mu.Unlock()

	records := make([]record, 0, len(batch))
	for k, v := range batch {
		records = append(records, record{bucket: k[0], key: k[1], value: v})
	}
	err := w.backend.write(records)

	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.err
	w.err, w.writing = err, nil
	if err == nil {
		close(written)
		for _, c := range w.failed {
			close(c)
		}
		w.failed = nil
		if was != nil {
			w.log.Info("the store takes writes again", "records", len(records))
		}
		return true
	}
	if was == nil {
		w.log.Error("the store does not take writes; bans are enforced, but a restart would forget the newest",
			"err", err)
	}
	for k, v := range batch {
		if _, newer := w.pending[k]; !newer {
			w.pending[k] = v
		}
	}
	w.failed = append(w.failed, written)
	return false
}

// status tells how many records wait or are on their way, and the last error.
func (w *writer) status() (pending int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	pending = len(w.pending)
	for k := range w.writing {
		if _, newer := w.pending[k]; !newer {
			pending++
		}
	}
	return pending, w.err
}

// close writes what is pending and closes the backend.
func (w *writer) close() error {
	if w.backend == nil {
		return nil
	}
	close(w.quit)
	<-w.done
	pending, err := w.status()
	if cerr := w.backend.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("close the store with %d records unwritten: %w", pending, err)
	}
	return nil
}
