package guard

import (
	"context"
	"time"

	"github.com/valkey-io/valkey-go"
)

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
		return err
	}
	b.taken(records)
	return nil
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
	batch := make([]change, 0, len(records))
	for _, r := range records {
		if s, ok := b.change(r); ok {
			batch = append(batch, s)
		}
	}
	news, err := b.putKeys(ctx, c, batch)
	if err != nil {
		return err
	}
	for i := range batch {
		if r := &batch[i]; r.id != 0 {
			b.versions.told(r.id, r.stamp())
		}
	}
	var cmds valkey.Commands
	for i := range batch {
		if r := &batch[i]; r.Name != nameForgive && news[i] {
			cmds = append(cmds, c.B().Zadd().Key(b.names.index(r.Name)).Gt().ScoreMember().ScoreMember(score(&r.sharedRecord), r.Name).Build())
		}
	}
	if err := all(c.DoMulti(ctx, cmds...)); err != nil || !push {
		return err
	}
	cmds = nil
	for i := range batch {
		if news[i] {
			cmds = append(cmds, c.B().Xadd().Key(b.names.changes()).Maxlen().Almost().Threshold(itoa(changesKept)).
				Id("*").FieldValue().FieldValue("by", b.node).FieldValue("r", mustJSON(batch[i].sharedRecord)).Build())
		}
	}
	return all(c.DoMulti(ctx, cmds...))
}

// score is when a lasting key is to be forgotten.
func score(r *sharedRecord) float64 {
	end := max(r.Until, r.Forget)
	if r.Forget == 0 && r.Value != "" && r.History != nil || end == 0 {
		end = 1 << 52 // never
	}
	return float64(end)
}

// putKeys writes the keys and tells which were news to the store.
func (b *share) putKeys(ctx context.Context, c valkey.Client, batch []change) ([]bool, error) {
	command := func(r *change, eval bool) valkey.Completed {
		keys := []string{b.names.prefix + r.Name, b.names.history(r.Name)}
		args := []string{"put", r.Field, itoa(r.Version), itoa(int64(r.Node)), r.Value, itoa(r.Until), string(r.History), itoa(r.Forget)}
		if r.History == nil {
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
