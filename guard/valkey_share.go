package guard

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valkey-io/valkey-go"
)

// changesKept is about how many changes the stream keeps, some 500 bytes each.
// A node that was away for more than that many reads everything anew.
const changesKept = 100_000

// A share is what this node tells the fleet: bans, allow entries, places. What
// the writer cannot send waits there, of several changes of one field the last.
type share struct {
	link    *link
	names   names
	script  script
	node    string
	writer  *writer
	keepFor func() time.Duration // for how long a place is worth knowing

	// latest is the latest version of an allow entry that this node has seen
	// or given: what it says next is later than that, whatever its clock says.
	latest atomic.Int64

	mu sync.Mutex
	// told are the places that the fleet knows, and of when: another success
	// there is news only after a while.
	told map[string]int64
}

// placeNews is how much later a success at a known place must be to be told.
const placeNews = time.Hour

// maxTold bounds the places known to be known, about 100 bytes each.
const maxTold = 1_000_000

// offer shares what was written to this node's own store, and gives a channel
// that is closed once the fleet's store has it; nil if it is none of its
// business.
func (f *share) offer(records []record) <-chan struct{} {
	var out []record
	now, ahead := f.link.now(), f.link.ahead.Load()
	text := func(b []byte) string { return string(b) }
	add := func(r sharedRecord) {
		out = append(out, record{bucket: r.Name, key: r.Field, value: []byte(mustJSON(r))})
	}
	for _, r := range records {
		switch r.bucket {
		case bucketBans:
			if r.value == nil {
				if k, err := decodeSentenceKey([]byte(r.key), text); err == nil {
					// What is taken back a moment after it was pronounced on
					// another node may seem earlier than that by its clock.
					add(shareRemoval(k, f.node, max(now, r.since+ahead+sameSentence.Milliseconds())))
				}
				continue
			}
			var s sentence
			if s.decode([]byte(r.key), r.value, text) == nil {
				add(shareBan(&s, f.node, ahead))
			}
		case bucketAllow:
			var a *Allowed
			if r.value != nil {
				a = new(Allowed)
				if decodeJSON(r.value, a) != nil {
					continue
				}
			}
			add(shareAllow(r.key, a, f.node, f.later(now), ahead))
		case bucketPlaces:
			for _, p := range f.news(r) {
				add(p)
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	return f.writer.put(out...)
}

// later gives a version for an allow entry: now, or just behind the latest.
func (f *share) later(now int64) int64 {
	for {
		latest := f.latest.Load()
		version := max(now, latest+1)
		if f.latest.CompareAndSwap(latest, version) {
			return version
		}
	}
}

// saw takes note of another node's version.
func (f *share) saw(version int64) {
	for {
		latest := f.latest.Load()
		if version <= latest || f.latest.CompareAndSwap(latest, version) {
			return
		}
	}
}

// news gives the places of a login that the fleet does not know.
func (f *share) news(r record) []sharedRecord {
	var list []place
	if r.value == nil || decodeJSON(r.value, &list) != nil {
		return nil
	}
	var out []sharedRecord
	for _, p := range list {
		if !f.isNews(r.key, p) {
			continue
		}
		at := p.Last + f.link.ahead.Load()
		out = append(out, sharedRecord{
			Name: namePlaces + escapeLogin(r.key), Field: p.Addr.String(), Version: at, Value: itoa(at),
			Until: at + f.keepFor().Milliseconds(),
		})
	}
	return out
}

// isNews tells whether the fleet does not know a place, and takes it to know
// it from now on.
func (f *share) isNews(login string, p place) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := login + "\x00" + p.Addr.String()
	if at, ok := f.told[k]; ok && p.Last-at < placeNews.Milliseconds() {
		return false
	}
	if len(f.told) >= maxTold {
		clear(f.told)
	}
	f.told[k] = p.Last
	return true
}

// forgive tells the other nodes to forget counters.
func (f *share) forgive(r UnbanRequest) {
	rec := sharedRecord{Name: nameForgive, Field: r.Target, Version: f.link.now(), Value: mustJSON(r)}
	f.writer.put(record{bucket: rec.Name, key: rec.Field + "\x00" + r.Rule, value: []byte(mustJSON(rec))})
}

// A shareBackend is the fleet's store as the writer knows a store.
type shareBackend struct{ *share }

// writeBatch is how many records are sent at once.
const writeBatch = 500

// write sends changes: first the keys, then what lists them, then the stream.
// So a node that reads the keys after it has looked where the stream ends
// misses nothing. All of it may be sent twice.
func (b shareBackend) write(records []record) error {
	c := b.link.client()
	if c == nil {
		return errAway
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := b.send(ctx, c, records, true)
	if err != nil {
		b.link.heard(err)
	}
	return err
}

// send sends changes by a client. Without push the stream is not told.
func (b *share) send(ctx context.Context, c valkey.Client, records []record, push bool) error {
	for len(records) > 0 {
		n := min(len(records), writeBatch)
		if err := b.sendBatch(ctx, c, records[:n], push); err != nil {
			return err
		}
		records = records[n:]
	}
	return nil
}

func (b *share) sendBatch(ctx context.Context, c valkey.Client, records []record, push bool) error {
	batch := make([]sharedRecord, 0, len(records))
	for _, r := range records {
		var s sharedRecord
		if err := json.Unmarshal(r.value, &s); err != nil {
			return fmt.Errorf("decode a record: %w", err)
		}
		batch = append(batch, s)
	}
	news, err := b.putKeys(ctx, c, batch)
	if err != nil {
		return err
	}
	var cmds valkey.Commands
	for i := range batch {
		if r := &batch[i]; r.Name != nameForgive && news[i] {
			cmds = append(cmds, c.B().Zadd().Key(b.names.index(r.Name)).Gt().ScoreMember().ScoreMember(score(r), r.Name).Build())
		}
	}
	if err := all(c.DoMulti(ctx, cmds...)); err != nil || !push {
		return err
	}
	cmds = nil
	for i := range batch {
		if news[i] {
			cmds = append(cmds, c.B().Xadd().Key(b.names.changes()).Maxlen().Almost().Threshold(itoa(changesKept)).
				Id("*").FieldValue().FieldValue("by", b.node).FieldValue("r", mustJSON(batch[i])).Build())
		}
	}
	return all(c.DoMulti(ctx, cmds...))
}

// score is when a lasting key is to be forgotten.
func score(r *sharedRecord) float64 {
	end := max(r.Until, r.Forget)
	if r.Forget == 0 && r.Value != "" && r.History != "" || end == 0 {
		end = 1 << 52 // never
	}
	return float64(end)
}

// putKeys writes the keys and tells which were news to the store.
func (b *share) putKeys(ctx context.Context, c valkey.Client, batch []sharedRecord) ([]bool, error) {
	command := func(r *sharedRecord, eval bool) valkey.Completed {
		keys := []string{b.names.prefix + r.Name, b.names.history(r.Name)}
		args := []string{"put", r.Field, itoa(r.Version), r.Value, itoa(r.Until), r.History, itoa(r.Forget)}
		if r.History == "" {
			keys, args = keys[:1], []string{"place", r.Field, itoa(r.Version), itoa(r.Until), itoa(maxPlaces)}
		}
		if eval {
			return c.B().Eval().Script(b.script.text).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
		}
		return c.B().Evalsha().Sha1(b.script.hash).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
	news := make([]bool, len(batch))
	var at []int
	var cmds valkey.Commands
	for i := range batch {
		if batch[i].Name == nameForgive {
			news[i] = true
			continue
		}
		at = append(at, i)
		cmds = append(cmds, command(&batch[i], false))
	}
	for n, r := range c.DoMulti(ctx, cmds...) {
		if e, ok := valkey.IsValkeyErr(r.Error()); ok && e.IsNoScript() {
			r = c.Do(ctx, command(&batch[at[n]], true))
		}
		done, err := r.AsInt64()
		if err != nil {
			return nil, err
		}
		news[at[n]] = done == 1
	}
	return news, nil
}

// all gives the first error of several answers.
func all(answers []valkey.ValkeyResult) error {
	for _, r := range answers {
		if err := r.Error(); err != nil {
			return err
		}
	}
	return nil
}

func (b shareBackend) close() error { return nil }
