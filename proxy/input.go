package proxy

import (
	"io"
	"sync"

	"mailreeve/protocol"
)

// Buffers come in two sizes: a small one for the lines of a dialogue, a large
// one as soon as a read fills the small one. Both are given back when the
// connection falls idle.
const (
	smallBuffer = 4 << 10
	largeBuffer = 64 << 10
)

// Both must hold what a conversation may be shown at once, the large one at
// least.
const _ = uint(largeBuffer - 2*protocol.MaxShown)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// input holds what was read from one side and not yet used up. It has no
// buffer while it is empty and at rest.
type input struct {
	buf  []byte
	from int // buf[from:to] is unused
	to   int
	much bool // the last read filled the buffer: there is more to come
}

// bytes is what is unused.
func (in *input) bytes() []byte { return in.buf[in.from:in.to] }

// use drops the first n unused bytes.
func (in *input) use(n int) {
	in.from += n
	if in.from == in.to {
		in.from, in.to = 0, 0
	}
}

// put appends p, which must fit beside what is there.
func (in *input) put(p []byte) {
	in.room(len(p))
	in.to += copy(in.buf[in.to:], p)
}

// fill reads once from r, behind what is unused.
func (in *input) fill(r io.Reader) (int, error) {
	if in.much {
		in.widen()
	}
	in.room(1)
	n, err := r.Read(in.buf[in.to:])
	in.to += n
	in.much = in.to == len(in.buf)
	return n, err
}

// full tells whether a read would find no room. The conversations' bound
// (protocol.MaxShown) lies below, so only a broken one lets it come to that.
func (in *input) full() bool { return in.to-in.from >= largeBuffer }

// room makes room for n more bytes, in the large buffer when a small one has
// filled up.
func (in *input) room(n int) {
	if in.buf == nil {
		if n > smallBuffer {
			in.buf = largeBuffers.Get().(*[largeBuffer]byte)[:]
		} else {
			in.buf = smallBuffers.Get().(*[smallBuffer]byte)[:]
		}
	}
	if in.to+n <= len(in.buf) && in.to < len(in.buf) {
		return
	}
	if in.to-in.from+n <= len(in.buf) && in.from > 0 {
		in.to = copy(in.buf, in.buf[in.from:in.to])
		in.from = 0
		return
	}
	if len(in.buf) == largeBuffer {
		return
	}
	large := largeBuffers.Get().(*[largeBuffer]byte)[:]
	size := copy(large, in.buf[in.from:in.to])
	in.free()
	in.buf, in.from, in.to = large, 0, size
}

// widen swaps an empty small buffer for a large one.
func (in *input) widen() {
	if in.from == in.to && len(in.buf) == smallBuffer {
		in.free()
		in.buf = largeBuffers.Get().(*[largeBuffer]byte)[:]
	}
}

// rest gives the buffer back if it is empty.
func (in *input) rest() {
	if in.from == in.to {
		in.free()
	}
}

// free gives the buffer back with whatever is in it. It is cleared: it may
// have held a password.
func (in *input) free() {
	buf := in.buf
	in.buf, in.from, in.to, in.much = nil, 0, 0, false
	switch len(buf) {
	case smallBuffer:
		clear(buf)
		smallBuffers.Put((*[smallBuffer]byte)(buf))
	case largeBuffer:
		largeBuffers.Put((*[largeBuffer]byte)(buf))
	}
}
