package guard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// What can still be read of a damaged store is read page by page, so that one
// bad page costs the records that are on it and not the bucket. Only pages that
// the newest readable root leads to are looked at: others hold what was true
// once, such as bans that have been lifted since.
//
// The layout is bbolt's, version 2, in the byte order of the machine. A page
// has a header of 16 bytes: number, kind, how many elements, how many pages
// more belong to it. A branch's elements are the position and length of a key
// and the number of a page, a leaf's a flag (1: the value is a bucket), and the
// position and lengths of key and value; positions count from the element.

const (
	pageHeader  = 16
	elementSize = 16

	pageBranch = 0x01
	pageLeaf   = 0x02

	metaMagic   = 0xED0CDAED
	metaVersion = 2

	// maxPage bounds a page, maxDepth the levels of the tree: the longest value
	// is an entry with all its marks, far below, and four levels hold millions.
	maxPage  = 64 << 20
	maxDepth = 32
)

// A salvage reads a damaged file.
type salvage struct {
	file     io.ReaderAt
	size     int64
	pageSize int64
	order    binary.ByteOrder
	seen     map[uint64]bool
	lost     int // pages and records that could not be read
}

// salvageBolt gives every sound record of a damaged file to into, and tells how
// many pages or records were not.
func salvageBolt(path string, into taker) (lost int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	s := &salvage{file: f, size: info.Size(), order: binary.NativeEndian, seen: make(map[uint64]bool)}
	root, err := s.root()
	if err != nil {
		return 0, err
	}
	known := make(map[string]bool)
	for _, b := range buckets {
		known[b] = true
	}
	s.walk(root, 0, func(flags uint32, key, value []byte) {
		if flags&1 == 0 || len(value) < 16 || !known[string(key)] {
			s.lost++
			return
		}
		s.bucket(string(key), value, into)
	})
	return s.lost, nil
}

// bucket gives a bucket's records. A small one is in its value itself.
func (s *salvage) bucket(name string, value []byte, into taker) {
	take := func(_ uint32, key, sealed []byte) {
		if v, ok := unseal(name, key, sealed); ok {
			into.take(name, []pair{{key, v}})
		} else {
			s.lost++
		}
	}
	if root := s.order.Uint64(value); root != 0 {
		s.walk(root, 0, take)
		return
	}
	s.elements(bytes.Clone(value[16:]), 0, take)
}

// root gives the root page of the newer of the two meta pages that are sound.
func (s *salvage) root() (root uint64, err error) {
	newest, found := uint64(0), false
	// The page size is in the meta page; the second one is at that distance.
	for size := int64(1 << 9); size <= 1<<16; size *= 2 {
		for _, at := range []int64{0, size} {
			b := make([]byte, pageHeader+64)
			if _, err := s.file.ReadAt(b, at); err != nil {
				continue
			}
			m := b[pageHeader:]
			if s.order.Uint32(m) != metaMagic || s.order.Uint32(m[4:]) != metaVersion || int64(s.order.Uint32(m[8:])) != size {
				continue
			}
			if txid := s.order.Uint64(m[48:]); !found || txid > newest {
				newest, found = txid, true
				root, s.pageSize = s.order.Uint64(m[16:]), size
			}
		}
	}
	if !found {
		return 0, errors.New("no header can be read")
	}
	return root, nil
}

// page reads a page with what belongs to it.
func (s *salvage) page(id uint64) ([]byte, error) {
	if s.seen[id] || id < 2 || id > uint64(s.size/s.pageSize) {
		return nil, fmt.Errorf("page %d is none", id)
	}
	s.seen[id] = true
	header := make([]byte, pageHeader)
	if _, err := s.file.ReadAt(header, int64(id)*s.pageSize); err != nil {
		return nil, err
	}
	length := (int64(s.order.Uint32(header[12:])) + 1) * s.pageSize
	if s.order.Uint64(header) != id || length > maxPage || int64(id)*s.pageSize+length > s.size {
		return nil, fmt.Errorf("page %d has no sound header", id)
	}
	b := make([]byte, length)
	_, err := s.file.ReadAt(b, int64(id)*s.pageSize)
	return b, err
}

// walk calls f with every element of the leaves below a page.
func (s *salvage) walk(id uint64, depth int, f func(flags uint32, key, value []byte)) {
	b, err := s.page(id)
	if err != nil || depth > maxDepth {
		s.lost++
		return
	}
	s.elements(b, depth, f)
}

// elements goes through a page's elements.
func (s *salvage) elements(b []byte, depth int, f func(flags uint32, key, value []byte)) {
	if len(b) < pageHeader {
		s.lost++
		return
	}
	kind, n := s.order.Uint16(b[8:]), int(s.order.Uint16(b[10:]))
	if kind != pageBranch && kind != pageLeaf || pageHeader+n*elementSize > len(b) {
		s.lost++
		return
	}
	for i := range n {
		e := b[pageHeader+i*elementSize:]
		if kind == pageBranch {
			s.walk(s.order.Uint64(e[8:]), depth+1, f)
			continue
		}
		at, key, value := uint64(s.order.Uint32(e[4:])), uint64(s.order.Uint32(e[8:])), uint64(s.order.Uint32(e[12:]))
		if at+key+value > uint64(len(e)) {
			s.lost++
			continue
		}
		f(s.order.Uint32(e), e[at:at+key], e[at+key:at+key+value])
	}
}
