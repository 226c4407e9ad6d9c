package guard

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/valkey-io/valkey-go"
	"golang.org/x/sync/errgroup"
)

// readAll reads all lasting keys, then tells the store what it does not know.
func (r *follower) readAll(ctx context.Context, c valkey.Client) error {
	r.reading++
	// An entry of our own says where the stream is.
	hello := c.B().Xadd().Key(r.share.names.changes()).Id("*").FieldValue().FieldValue("by", r.share.node).Build()
	last, err := c.Do(ctx, hello).ToString()
	if wrongType(err) {
		r.link.badValues(1)
		err = errors.Join(err, c.Do(ctx, c.B().Del().Key(r.share.names.changes()).Build()).Error())
	}
	if err != nil {
		return err
	}
	r.last = last
	// The first bans are in force while the last are being read.
	err = inParallel(ctx, indexes, func(ctx context.Context, i int) error {
		list, err := r.readIndex(ctx, c, i)
		if err != nil {
			return err
		}
		return r.readKeys(ctx, c, list)
	})
	if err != nil {
		return err
	}
	r.tellMissing()
	r.done.Add(1)
	go r.keepRead(ctx)
	return nil
}

// keepMost is how many sentences that were read are kept at a time, some 200
// bytes each.
const keepMost = 100_000

// keepRead keeps the sentences of a reading for this node's next start. It does
// so when all are in force, for writing a million takes longer than reading
// them.
func (r *follower) keepRead(ctx context.Context) {
	defer r.done.Done()
	v := r.share.versions
	for ctx.Err() == nil {
		var written <-chan struct{}
		n := 0
		r.g.mu.Lock()
		r.g.sentences.walk(&r.g.mu, func(s *sentence) {
			if n < keepMost && v.keep(versionID(v, s.sentenceKey)) {
				// At once: what changes from now on is written after it.
				written = r.g.writer.keep(s.record())
				n++
			}
		})
		r.g.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-written:
		case <-ctx.Done():
		}
	}
}

// readers is how many index keys are read at a time: while one waits for the
// store the others decode.
const readers = 4

func inParallel(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for i := range n {
		group.Go(func() error { return f(ctx, i) })
	}
	return group.Wait()
}

// readIndex reads which keys an index lists.
func (r *follower) readIndex(ctx context.Context, c valkey.Client, i int) ([]string, error) {
	list, err := c.Do(ctx, c.B().Zrange().Key(r.share.names.indexAt(i)).Min("0").Max("-1").Build()).AsStrSlice()
	if wrongType(err) {
		r.link.badValues(1)
		return nil, nil
	}
	return list, err
}

// readKeys reads the histories of lasting keys. Places have none; they are in
// the keys themselves.
func (r *follower) readKeys(ctx context.Context, c valkey.Client, list []string) error {
	for len(list) > 0 {
		n := min(len(list), readMost)
		cmds := make(valkey.Commands, 0, n)
		for _, name := range list[:n] {
			key := r.share.names.history(name)
			if strings.HasPrefix(name, namePlaces) {
				key = r.share.names.prefix + name
			}
			cmds = append(cmds, c.B().Hgetall().Key(key).Build())
		}
		news := make([]sharedRecord, 0, n)
		for i, reply := range c.DoMulti(ctx, cmds...) {
			fields, err := reply.AsStrMap()
			if wrongType(err) {
				r.link.badValues(1)
				continue
			}
			if err != nil {
				return err
			}
			for field, value := range fields {
				news = append(news, storedRecord(list[i], field, value))
			}
		}
		r.take(news, true)
		list = list[n:]
	}
	return nil
}

// storedRecord makes the record of what a key holds: of places their time, of
// all else "version node history".
func storedRecord(name, field, value string) sharedRecord {
	s := sharedRecord{Name: name, Field: field}
	if strings.HasPrefix(name, namePlaces) {
		s.Value = value
		return s
	}
	version, rest, _ := strings.Cut(value, " ")
	node, history, _ := strings.Cut(rest, " ")
	s.Version, _ = strconv.ParseInt(version, 10, 64) // 0 is refused by who takes it
	n, err := strconv.ParseUint(node, 10, 32)
	if err != nil {
		s.Version = 0
	}
	s.Node, s.History = uint32(n), []byte(history)
	return s
}

// tellMissing shares what this node knows and the store does not: what was
// decided while it was away before a restart, or what it has lost.
func (r *follower) tellMissing() {
	var list []missed
	g, v := r.g, r.share.versions
	now := g.clock.now().UnixMilli()
	miss := func(id uint64, since int64) (missing bool) {
		e, known := v.get(id)
		if missing = !known || e.heard != r.reading; missing {
			list = append(list, missed{id: id, have: e, known: known, since: since})
		}
		return missing
	}
	var unheard []sentence
	g.mu.Lock()
	g.sentences.walk(&g.mu, func(s *sentence) {
		if s.forget > now && miss(versionID(v, s.sentenceKey), s.since) {
			unheard = append(unheard, *s)
		}
	})
	for k, a := range g.allows {
		if miss(versionID(v, k), now) {
			list[len(list)-1].record = record{bucket: bucketAllow, key: k, value: encodeJSON(a)}
		}
	}
	g.mu.Unlock()
	g.complete(unheard)
	for i := range unheard {
		list[i].record = unheard[i].record()
	}
	r.share.offerMissed(list)
	r.share.mu.Lock()
	clear(r.share.told)
	r.share.mu.Unlock()
	g.places.each(func(login string, list []place) {
		r.share.offerPlaces(record{bucket: bucketPlaces, key: login, value: encodeJSON(list)})
	})
}
