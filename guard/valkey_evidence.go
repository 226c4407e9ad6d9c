package guard

import (
	"context"
	"slices"
	"time"

	"github.com/valkey-io/valkey-go"
)

// evidenceTimeout is how long an operator waits for the evidence of some
// hundred bans.
const evidenceTimeout = 2 * time.Second

// evidence completes bans whose evidence this node does not have: it has read
// their histories only. While the store is away they stay without.
func (f *fleet) evidence(bans []Ban) {
	c := f.link.client()
	for c != nil && len(bans) > 0 {
		n := min(len(bans), readMost)
		if !f.evidenceOf(c, bans[:n]) {
			return
		}
		bans = bans[n:]
	}
}

func (f *fleet) evidenceOf(c valkey.Client, bans []Ban) bool {
	ctx, cancel := context.WithTimeout(context.Background(), evidenceTimeout)
	defer cancel()
	var cmds valkey.Commands
	var at []int
	for i := range bans {
		if b := &bans[i]; len(b.Events) == 0 && b.Score > 0 {
			k := b.sentenceKey()
			cmds = append(cmds, c.B().Hget().Key(f.share.names.prefix+sentenceName(k)).Field(sentenceField(k)).Build())
			at = append(at, i)
		}
	}
	for i, reply := range c.DoMulti(ctx, cmds...) {
		text, err := reply.ToString()
		if valkey.IsValkeyNil(err) || wrongType(err) {
			continue // it has just ended, or is no hash
		}
		if err != nil {
			return false
		}
		s := sentence{evidence: readEvidence(text)}
		if b := &bans[at[i]]; s.evidence != "" {
			b.Events, b.Missing = s.events(), ""
		}
	}
	return true
}

// sentenceKey gives the key of the sentence that a ban shows.
func (b *Ban) sentenceKey() sentenceKey {
	k := sentenceKey{
		kind: sentenceKind(slices.Index(consequenceNames[1:], b.Kind)), scope: b.Scope, simulated: b.Simulated,
		key: key{kind: byNetwork, prefix: b.Prefix, login: b.Login},
	}
	switch {
	case b.Login != "" && b.Prefix.IsValid():
		k.key.kind = byPair
	case b.Login != "":
		k.key.kind = byLogin
	}
	return k
}
