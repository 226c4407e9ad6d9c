package guard

import "math/bits"

// Tags are bytes of hashes, eight in a word, and looked at all at once: that a
// byte is in a word is found by arithmetic, without a loop.

const (
	eachByte = 0x0101010101010101
	topBits  = 0x8080808080808080
)

// tagOf gives the tag for a hash: a byte of it that neither chooses the part nor,
// by much, the group, and is never 0.
func tagOf(hash uint64) uint64 {
	return max(hash>>40&0xff, 1)
}

// tagged gives a bit for each row of a group that may have the hash: those that
// have its tag, and now and then one more.
func tagged(tags, hash uint64) uint64 {
	differ := tags ^ tagOf(hash)*eachByte
	return (differ - eachByte) &^ differ & topBits
}

// roomy gives a bit for each free row of a group; those after the first may be
// wrong. It is 0 if none is free.
func roomy(tags uint64) uint64 { return (tags - eachByte) &^ tags & topBits }

// rowOf gives the row of a group that the first of the bits is about.
func rowOf(group int, found uint64) int {
	return group*groupRows + bits.TrailingZeros64(found)/8
}
