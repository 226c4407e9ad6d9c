package guard

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// take takes over changes, those of sentences together; in bulk if they are of a
// reading of all keys.
func (r *follower) take(news []sharedRecord, bulk bool) {
	var bad int64
	var sentences []*heardSentence
	shared := make(map[string]string) // one copy of what many bans have in common
	text := func(b []byte) string {
		have, ok := shared[string(b)]
		if !ok {
			have = string(b)
			shared[have] = have
		}
		return have
	}
	ahead := r.link.ahead.Load()
	for i := range news {
		s := &news[i]
		r.applied.Add(1)
		ok := true
		switch {
		case s.Name == nameForgive:
			var u UnbanRequest
			if ok = json.Unmarshal([]byte(s.Value), &u) == nil && len(u.Target) <= 512 && s.stamp().sane(); ok {
				r.g.forgive(u, s.Version-ahead, false)
			}
		case strings.HasPrefix(s.Name, namePlaces):
			ok = r.takePlace(s)
		case strings.HasPrefix(s.Name, nameAllowIP), strings.HasPrefix(s.Name, nameAllowLogin):
			ok = r.takeAllow(s, bulk)
		default:
			h, err := readHistory(s.Name, s.Field, s.stamp(), s.History, ahead, text)
			if ok = err == nil; ok {
				h.s.evidence = readEvidence(s.Value)
				sentences = append(sentences, h)
			}
		}
		if !ok {
			bad++
		}
	}
	r.link.badValues(bad)
	if len(sentences) > 0 {
		r.g.hear(sentences, r.reading, bulk)
		r.tidyVersions()
	}
}

// tidyVersions forgets the versions of what is no more, if there are many.
func (r *follower) tidyVersions() {
	v := r.share.versions
	r.g.mu.Lock()
	n := r.g.sentences.len() + len(r.g.allows)
	if !v.untidy(n) {
		r.g.mu.Unlock()
		return
	}
	live := make(map[uint64]struct{}, n)
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
		return false
	}
	now := r.g.clock.now().UnixMilli()
	pl := place{p, min(at-r.link.ahead.Load(), now)}
	if list := r.g.places.learn(login, pl); list != nil {
		r.share.isNews(login, pl) // it knows
		r.g.writer.keep(record{bucket: bucketPlaces, key: login, value: encodeJSON(list)})
	}
	return true
}

func (r *follower) takeAllow(s *sharedRecord, bulk bool) bool {
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
	if !s.stamp().sane() {
		return false
	}
	if string(s.History) == forgottenAllow {
		r.g.hearAllow(k, nil, s.stamp(), r.reading, bulk)
		return true
	}
	a, err := readAllow(s.Name, s.History, r.link.ahead.Load())
	if err != nil {
		return false
	}
	r.g.hearAllow(k, &a, s.stamp(), r.reading, bulk)
	return true
}
