package guard

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// A table of a million rows is spread over ten thousand pages, more than the
// processor has at hand where they lie: to find that out costs as much again as
// to read the row. So once a large table has been loaded, whose parts lie one
// after the other, the kernel is asked to put what is there now into pages of
// 2 MB. What it gives up: the time to copy it, some 20 ms once. Where the kernel
// will not (before Linux 6.1, or where memory is in pieces) nothing changes.

const (
	hugePage = 2 << 20
	// worthHuge is the size of a table, in bytes, from which on it is tried.
	worthHuge = 8 * hugePage
)

// collapse has the rows put into huge pages, if they lie together.
func (r *roll) collapse() {
	first, last, total := ^uintptr(0), uintptr(0), uintptr(0)
	for i := range r.parts {
		if p := r.parts[i].Load(); p != nil {
			at := uintptr(unsafe.Pointer(&p.rows[0]))
			size := uintptr(len(p.rows)) * unsafe.Sizeof(row{})
			first, last, total = min(first, at), max(last, at+size), total+size
		}
	}
	if total < worthHuge || last-first > 2*total {
		return
	}
	first = (first + hugePage - 1) &^ (hugePage - 1)
	last &^= hugePage - 1
	for ; first < last; first += hugePage {
		// Nothing depends on it, and what went wrong nobody could mend.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, first, hugePage, unix.MADV_COLLAPSE)
	}
}
