package transcript

import (
	"path/filepath"
	"strings"
	"testing"

	"mailreeve/protocol"
)

// Dir plays every transcript of a directory in every delivery, as subtests
// named after the files.
func Dir(t *testing.T, p *protocol.Protocol, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Fatalf("no transcripts in %s", dir)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			tr, err := ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range []Delivery{ByLine, ByByte, Coalesced} {
				if err := Play(p, tr, d); err != nil {
					t.Errorf("%s\n%s:%v (%s)", tr.Claim, name, err, d)
				}
			}
		})
	}
}
