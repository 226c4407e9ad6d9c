package guard

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A large table lies in huge pages once it is asked for, and loses nothing.
func TestALargeTableLiesInHugePages(t *testing.T) {
	probe, err := unix.Mmap(-1, 0, 2*hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(probe)
	page := probe[-uintptr(unsafe.Pointer(&probe[0]))&(hugePage-1):][:hugePage]
	for i := 0; i < len(page); i += os.Getpagesize() {
		page[i] = 1
	}
	if err := unix.Madvise(page, unix.MADV_COLLAPSE); err != nil {
		t.Skip("this kernel makes no huge pages on demand:", err)
	}
	const n = 500_000
	ss, x := anIndex()
	ss.roll.reserve(n)
	fill(ss, n)
	ss.roll.collapse()
	p := ss.roll.parts[rollParts/2].Load()
	if kb := hugeAt(t, uintptr(unsafe.Pointer(&p.rows[0]))); kb == 0 {
		t.Error("nothing of the table is in huge pages")
	}
	for i := range n {
		if x.lookup(banAddr(i), 1, "auth") == 0 {
			t.Fatalf("%v is not banned any more", banAddr(i))
		}
	}
}

// hugeAt tells how much of the mapping at an address is in huge pages, in KiB.
func hugeAt(t *testing.T, at uintptr) (kb int) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inside := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var first, last uintptr
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x ", &first, &last); err == nil {
			inside = first <= at && at < last
		}
		if inside && strings.HasPrefix(lines.Text(), "AnonHugePages:") {
			fmt.Sscanf(lines.Text(), "AnonHugePages: %d", &kb)
		}
	}
	return kb
}
