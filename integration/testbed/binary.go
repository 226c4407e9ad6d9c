package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
		b.bin.err = b.build(b.bin.path)
	})
	return b.bin.path, b.bin.err
}

func (b *Bed) build(path string, flags ...string) error {
	args := []string{"build", "-o", path}
	if os.Getenv("MAILREEVE_TEST_RACE") != "off" {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(append(args, flags...), "./cmd/mailreeve")...)
	cmd.Dir = b.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./cmd/mailreeve: %w\n%s", err, out)
	}
	return nil
}
