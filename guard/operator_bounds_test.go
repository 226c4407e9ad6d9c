package guard

import (
	"strings"
	"testing"
)

// What the store would not take back after a restart is refused, not forgotten.
func TestWhatAnOperatorSaysIsAsLongAsTheStoreTakes(t *testing.T) {
	dir := t.TempDir()
	s := onDisk(t, dir, nil)
	longest := strings.Repeat("r", maxReason)
	for _, r := range []BanRequest{
		{Target: "192.0.2.9", Reason: longest + "r"},
		{Target: "192.0.2.9", Scope: strings.Repeat("s", MaxName+1)},
	} {
		if _, err := s.g.AddBan(r); err == nil {
			t.Errorf("a ban with a reason of %d and a scope of %d bytes was taken", len(r.Reason), len(r.Scope))
		}
	}
	if _, err := s.g.Allow(AllowRequest{Target: "192.0.2.9", Reason: longest + "r"}); err == nil {
		t.Error("an allow entry with too long a reason was taken")
	}
	if _, err := s.g.AddBan(BanRequest{Target: "192.0.2.1", Reason: longest}); err != nil {
		t.Fatal(err)
	}
	s.written()
	s = onDisk(t, s.crash(dir), nil)
	defer s.g.Close()
	if b := s.g.Bans(BanFilter{}); len(b) != 1 || b[0].Reason != longest {
		t.Errorf("%d bans after the restart, want the one", len(b))
	}
}
