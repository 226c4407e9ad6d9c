package guard

import (
	"testing"

	"pgregory.net/rapid"
)

// The first bit that is given is always right, and no row is missed; those behind
// it may be wrong.
func TestTagsAreFoundAsByALoop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hash := rapid.Uint64().Draw(t, "hash")
		var tags uint64
		var hits, free []int
		for i := range groupRows {
			tag := rapid.SampledFrom([]uint64{0, 1, 2, 0x7f, 0x80, 0xff, tagOf(hash), tagOf(hash) ^ 1, tagOf(hash) ^ 0x80}).Draw(t, "tag")
			tags |= tag << (8 * i)
			if tag == tagOf(hash) {
				hits = append(hits, i)
			}
			if tag == 0 {
				free = append(free, i)
			}
		}
		for name, of := range map[string]struct {
			found uint64
			want  []int
		}{"tagged": {tagged(tags, hash), hits}, "roomy": {roomy(tags), free}} {
			if len(of.want) == 0 && of.found != 0 || len(of.want) > 0 && rowOf(0, of.found) != of.want[0] {
				t.Fatalf("%s of %016x for %02x: %016x, want %v first", name, tags, tagOf(hash), of.found, of.want)
			}
			for _, i := range of.want {
				if of.found>>(8*i)&0x80 == 0 {
					t.Fatalf("%s of %016x for %02x: %016x misses row %d", name, tags, tagOf(hash), of.found, i)
				}
			}
		}
	})
}
