package guard

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valkey-io/valkey-go"
	"golang.org/x/sync/errgroup"
)

// A follower takes over what the fleet decides. It reads all lasting keys once,
// then the stream from where it ended before that: so there is no gap, and what
// comes twice changes nothing. After a break it goes on where it was; if the
// stream no longer has that, it reads all anew.
type follower struct {
	*fleet
	state followState
	last  string // the id of the last change read
	// sure is the last change up to which none was missed, as of sureAt.
	sure   string
	sureAt time.Time
	doubts atomic.Uint64
	tidied int
	// reading numbers the readings of all keys.
	reading uint32
	// applied counts changes taken over, for tests and metrics.
	applied atomic.Uint64
}

// A followState is what a follower has to do next.
type followState uint8

const (
	behind    followState = iota // it must read all keys
	doubtful                     // it may have missed changes
	following                    // it has read all changes up to the last
)

const (
	// readBlock is how long a read waits for changes, and readSlack how much
	// longer it may take before it is made sure that none were missed.
	readBlock = time.Second
	readSlack = 500 * time.Millisecond
	readMost  = 500
	// followPause is the pause after an error.
	followPause = 50 * time.Millisecond
)

// follow reads changes until ctx ends.
func (f *fleet) follow(ctx context.Context) {
	defer f.done.Done()
	r := &f.follower
	for ctx.Err() == nil {
		c := f.client.Load()
		if c == nil {
			pause(ctx, followPause)
			continue
		}
		select {
		case <-f.again:
			r.state = behind
		default:
		}
		if err := r.step(ctx, *c); err != nil {
			r.doubt()
			pause(ctx, followPause)
		}
	}
}

// step does what is next: it reads all keys, or makes sure that the stream has
// all that came since the last change read, or reads changes.
func (r *follower) step(ctx context.Context, c valkey.Client) error {
	switch r.state {
	case behind:
		if err := r.readAll(ctx, c); err != nil {
			return err
		}
		r.syncedOnce.Do(func() { close(r.synced) })
	case doubtful:
		unbroken, err := r.unbroken(ctx, c)
		if err != nil {
			return err
		}
		if !unbroken {
			r.state = behind
			return nil
		}
	case following:
		if err := r.readChanges(ctx, c); err != nil {
			return err
		}
		if time.Since(r.sureAt) > readBlock+readSlack {
			r.doubt()
			return nil
		}
	}
	r.state, r.sure, r.sureAt = following, r.last, time.Now()
	return nil
}

// doubt says that changes may have been trimmed from the stream before they
// were read.
func (r *follower) doubt() {
	if r.state == following {
		r.state = doubtful
		r.doubts.Add(1)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// unbroken tells whether the stream still has all that came since the change
// up to which none was missed. It takes a stream for broken from which just
// that one has been trimmed, which does no harm.
func (r *follower) unbroken(ctx context.Context, c valkey.Client) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	first, err := c.Do(ctx, c.B().Xrange().Key(r.share.names.changes()).Start("-").End("+").Count(1).Build()).AsXRange()
	if err != nil && !wrongType(err) {
		return false, err
	}
	return len(first) == 1 && !idLess(r.sure, first[0].ID), nil
}

// wrongType tells whether a key is not of the type that it should be of.
func wrongType(err error) bool {
	e, ok := valkey.IsValkeyErr(err)
	return ok && strings.HasPrefix(e.Error(), "WRONGTYPE")
}

// idLess compares the ids of a stream, "milliseconds-number".
func idLess(a, b string) bool {
	am, an := splitID(a)
	bm, bn := splitID(b)
	return am < bm || am == bm && an < bn
}

func splitID(id string) (ms, n uint64) {
	left, right, _ := strings.Cut(id, "-")
	ms, _ = strconv.ParseUint(left, 10, 64)
	n, _ = strconv.ParseUint(right, 10, 64)
	return ms, n
}

// readChanges reads what has changed, waiting a while for it.
func (r *follower) readChanges(ctx context.Context, c valkey.Client) error {
	ctx, cancel := context.WithTimeout(ctx, readBlock+2*time.Second)
	defer cancel()
	key := r.share.names.changes()
	cmd := c.B().Xread().Count(readMost).Block(readBlock.Milliseconds()).Streams().Key(key).Id(r.last).Build()
	got, err := c.Do(ctx, cmd).AsXRead()
	if valkey.IsValkeyNil(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var news []sharedRecord
	for _, e := range got[key] {
		r.last = e.ID
		var s sharedRecord
		text := e.FieldValues["r"]
		switch {
		case e.FieldValues["by"] == r.share.node || e.FieldValues["by"] != "" && text == "":
			continue
		case len(text) > 3*maxSharedValue || json.Unmarshal([]byte(text), &s) != nil:
			r.link.badValues(1)
			continue
		}
		news = append(news, s)
	}
	for _, t := range r.take(news) {
		r.g.tellHeard(&t)
	}
	return nil
}

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
	lists := make([][]string, indexes)
	// What is in force first: the first keys are refused while the last are
	// being read.
	err = inParallel(ctx, indexes, func(ctx context.Context, i int) (err error) {
		if lists[i], err = r.readIndex(ctx, c, i); err != nil {
			return err
		}
		return r.readKeys(ctx, c, lists[i], false)
	})
	if err != nil {
		return err
	}
	err = inParallel(ctx, indexes, func(ctx context.Context, i int) error { return r.readKeys(ctx, c, lists[i], true) })
	if err != nil {
		return err
	}
	r.tellMissing()
	return nil
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

// readKeys reads lasting keys, or their histories.
func (r *follower) readKeys(ctx context.Context, c valkey.Client, list []string, past bool) error {
	for len(list) > 0 {
		n := min(len(list), readMost)
		var cmds valkey.Commands
		for _, name := range list[:n] {
			key := r.share.names.prefix + name
			if past {
				key = r.share.names.history(name)
			}
			cmds = append(cmds, c.B().Hgetall().Key(key).Build())
		}
		var news []sharedRecord
		for i, reply := range c.DoMulti(ctx, cmds...) {
			fields, err := reply.AsStrMap()
			if err != nil {
				if wrongType(err) {
					r.link.badValues(1)
					continue
				}
				return err
			}
			for field, value := range fields {
				s := sharedRecord{Name: list[i], Field: field, Value: value}
				if past {
					version, text, _ := strings.Cut(value, " ")
					s.Version, _ = strconv.ParseInt(version, 10, 64)
					s.Value, s.History = "", text
				}
				news = append(news, s)
			}
		}
		r.take(news)
		list = list[n:]
	}
	return nil
}

// take takes over changes, those of sentences together, and gives what they
// changed.
func (r *follower) take(news []sharedRecord) []heardChange {
	var bad int64
	var sentences []*heardSentence
	for i := range news {
		s := &news[i]
		r.applied.Add(1)
		ok := true
		switch {
		case s.Name == nameForgive:
			var u UnbanRequest
			if ok = json.Unmarshal([]byte(s.Value), &u) == nil && len(u.Target) <= 512; ok {
				r.g.forgive(u)
			}
		case strings.HasPrefix(s.Name, namePlaces):
			ok = r.takePlace(s)
		case strings.HasPrefix(s.Name, nameAllowIP), strings.HasPrefix(s.Name, nameAllowLogin):
			ok = r.takeAllow(s)
		default:
			h, err := readBan(s.Name, s.Field, cmp.Or(s.Value, s.History), r.link.ahead.Load())
			if ok = err == nil; ok {
				h.past = s.Value == ""
				sentences = append(sentences, h)
			}
		}
		if !ok {
			bad++
		}
	}
	r.link.badValues(bad)
	if len(sentences) == 0 {
		return nil
	}
	defer r.tidyVersions()
	return r.g.hear(sentences, r.reading)
}

// tidyVersions forgets the versions of what is no more, if there are many.
func (r *follower) tidyVersions() {
	v := r.share.versions
	if !v.untidy() {
		return
	}
	live := make(map[uint64]struct{})
	r.g.mu.Lock()
	r.g.sentences.walk(&r.g.mu, func(s *sentence) { live[versionID(v, s.sentenceKey)] = struct{}{} })
	for k := range r.g.allows {
		live[versionID(v, k)] = struct{}{}
	}
	r.g.mu.Unlock()
	v.tidy(live, r.link.now())
}

func (r *follower) takePlace(s *sharedRecord) bool {
	login, err := url.PathUnescape(strings.TrimPrefix(s.Name, namePlaces))
	p, perr := netip.ParsePrefix(s.Field)
	at, aerr := strconv.ParseInt(s.Value, 10, 64)
	if err != nil || perr != nil || aerr != nil || !saneKey(key{kind: byPair, prefix: p, login: login}) || at < 0 || at > 1<<52 {
		return s.Value == "" // an empty history is none of our business
	}
	now := r.g.clock.now().UnixMilli()
	pl := place{p, min(at-r.link.ahead.Load(), now)}
	if list := r.g.places.learn(login, pl); list != nil {
		r.share.isNews(login, pl) // it knows
		r.g.writer.keep(record{bucket: bucketPlaces, key: login, value: encodeJSON(list)})
	}
	return true
}

func (r *follower) takeAllow(s *sharedRecord) bool {
	k, ok := strings.CutPrefix(s.Name, nameAllowLogin)
	if ok {
		login, err := url.PathUnescape(k)
		if err != nil {
			return false
		}
		k = "login " + login
	} else {
		p, err := ParsePrefix(strings.TrimPrefix(s.Name, nameAllowIP))
		if err != nil {
			return false
		}
		k = p.String()
	}
	removed := s.Value == "" && s.History == "{}"
	if s.Value == "" && !removed {
		return true // the history of an entry: its key tells more
	}
	a, version := Allowed{}, s.Version
	if !removed {
		var err error
		if a, version, err = readAllow(s.Name, s.Value, r.link.ahead.Load()); err != nil {
			return false
		}
	}
	v, id := r.share.versions, versionID(r.share.versions, k)
	if standing := v.compare(id, version, r.reading); standing == versionOld || standing == versionSame {
		return true
	}
	v.heard(id, version, r.reading)
	if removed {
		r.g.hearDisallow(k)
	} else {
		r.g.hearAllow(k, a)
	}
	return true
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
		r.share.offer([]record{{bucket: bucketPlaces, key: login, value: encodeJSON(list)}})
	})
}
