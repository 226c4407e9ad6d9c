package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
)

// A binary is mailreeve, built once for a run.
type binary struct {
	once sync.Once
	path string
	err  error
}

// Binary builds mailreeve with the race detector and returns its path. Where
// memory is measured, MAILREEVE_TEST_RACE=off leaves the detector out: what it
// notes about memory grows with use.
func (b *Bed) Binary() (string, error) {
	b.bin.once.Do(func() {
		b.bin.path = filepath.Join(b.dir, "mailreeve")
		args := []string{"build", "-race", "-o", b.bin.path, "./cmd/mailreeve"}
		if os.Getenv("MAILREEVE_TEST_RACE") == "off" {
			args = slices.Delete(args, 1, 2)
		}
		cmd := exec.Command("go", args...)
		cmd.Dir = b.root
		if out, err := cmd.CombinedOutput(); err != nil {
			b.bin.err = fmt.Errorf("go build ./cmd/mailreeve: %w\n%s", err, out)
		}
	})
	return b.bin.path, b.bin.err
}
