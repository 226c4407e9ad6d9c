package testbed

import (
	"fmt"
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

// Binary builds mailreeve with the race detector and returns its path.
func (b *Bed) Binary() (string, error) {
	b.bin.once.Do(func() {
		b.bin.path = filepath.Join(b.dir, "mailreeve")
		cmd := exec.Command("go", "build", "-race", "-o", b.bin.path, "./cmd/mailreeve")
		cmd.Dir = b.root
		if out, err := cmd.CombinedOutput(); err != nil {
			b.bin.err = fmt.Errorf("go build ./cmd/mailreeve: %w\n%s", err, out)
		}
	})
	return b.bin.path, b.bin.err
}
