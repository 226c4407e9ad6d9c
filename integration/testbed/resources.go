package testbed

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// RSS is how much memory mailreeve has in use now, in bytes.
func (p *Proxy) RSS() int {
	p.t.Helper()
	return p.status("VmRSS:")
}

// OwnMemory is RSS without what is on disk anyway: the program, and the store's
// file, of which the kernel keeps in memory what it likes.
func (p *Proxy) OwnMemory() int {
	p.t.Helper()
	return p.status("RssAnon:")
}

// status reads one of the sizes in the process's status, in bytes.
func (p *Proxy) status(field string) int {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.proc.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), field)
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		p.t.Fatal(err)
	}
	return kib << 10
}

// LimitFiles sets how many descriptors mailreeve may have open.
func (p *Proxy) LimitFiles(n int) {
	p.t.Helper()
	limit := unix.Rlimit{Cur: uint64(n), Max: 20000}
	if err := unix.Prlimit(p.proc.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		p.t.Fatal(err)
	}
}

// Files is how many descriptors mailreeve has open.
func (p *Proxy) Files() int {
	p.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.proc.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	return len(list)
}
