package guard

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailreeve/protocol"
)

// smallDisk mounts a disk of that many bytes.
func smallDisk(t *testing.T, size int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		t.Skipf("only root can mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fillUp takes all that is left of a disk.
func fillUp(t *testing.T, dir string) (filler string) {
	t.Helper()
	filler = filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); ; {
		if _, err := f.Write(block); err != nil {
			return filler
		}
	}
}

// A disk that is full for real: bans are enforced, it is said once, and what
// was decided meanwhile is written when there is room again, where a restart
// finds it.
func TestARealDiskIsFull(t *testing.T) {
	dir, said := smallDisk(t, 1<<20), &saidLog{}
	opt := Options{Store: StoreConfig{Kind: "embedded", Path: dir}, Log: slog.New(slog.NewTextHandler(said, nil))}
	cfg := DefaultConfig()
	cfg.ExemptLocal = false
	s := &story{T: t, g: open(t, cfg, opt)}
	s.guesses("192.0.2.1", "alice", 10)
	filler := fillUp(t, dir)
	bans := make([]BanRequest, 200)
	for i := range bans {
		bans[i] = BanRequest{Target: fmt.Sprintf("198.51.100.%d", i), Reason: strings.Repeat("long ", 100), For: Duration(time.Hour)}
	}
	if _, err := s.g.AddBans(bans); err != nil {
		t.Fatal(err)
	}
	s.admits(from("198.51.100.199"), protocol.Banned)
	eventually(t, 20*time.Second, "the fault is told", func() bool { return !s.g.Status().Store.Healthy })
	// The first few may have found room inside the file.
	if st := s.g.Status().Store; !strings.Contains(st.Error, "no space left") || st.Pending < len(bans)/2 || said.times("does not take writes") != 1 {
		t.Errorf("status %+v; said %s", st, said.text.String())
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "all is written", func() bool {
		st := s.g.Status().Store
		return st.Healthy && st.Pending == 0
	})
	if err := s.g.Close(); err != nil {
		t.Fatal(err)
	}
	s.g = open(t, cfg, opt)
	if st := s.g.Status().Store; st.Recovered != "" {
		t.Errorf("the store was damaged: %s", st.Recovered)
	}
	s.admits(from("192.0.2.1"), protocol.Banned)
	s.admits(from("198.51.100.199"), protocol.Banned)
	if err := s.g.Close(); err != nil {
		t.Error(err)
	}
}
