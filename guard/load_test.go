package guard

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailreeve/protocol"
)

// rows counts the rows that the table has room for.
func (r *roll) rows() (n int) {
	for i := range r.parts {
		if p := r.parts[i].Load(); p != nil {
			n += len(p.rows)
		}
	}
	return n
}

// Thousands of bans, which many read at once, come back whole, each as it was.
// Those that are over leave neither a record nor room in the table.
func TestAFullStoreIsLoadedWhole(t *testing.T) {
	const n = 12_000
	dir := t.TempDir()
	s := onDisk(t, dir, nil)
	requests := make([]BanRequest, n)
	for i := range requests {
		length := Forever
		if i%20 != 0 {
			length = Duration(time.Hour)
		}
		requests[i] = BanRequest{Target: banAddr(i).String(), Scope: []string{"auth", "mx"}[i%2], For: length, Reason: fmt.Sprint("no. ", i)}
	}
	if _, err := s.g.AddBans(requests); err != nil {
		t.Fatal(err)
	}
	before := s.g.Bans(BanFilter{Sort: "target"})
	s.written()
	dir = s.crash(dir)

	s = onDisk(t, dir, nil)
	after := s.g.Bans(BanFilter{Sort: "target"})
	if diff := cmp.Diff(before, after, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || len(after) != n {
		t.Fatalf("%d bans of %d came back: %s", len(after), n, diff)
	}
	s.written()
	dir = s.crash(dir)

	late := func() time.Time { return time.Now().Add(30 * 24 * time.Hour) }
	s = onDisk(t, dir, late)
	if got := len(s.g.Bans(BanFilter{})); got != n/20 {
		t.Errorf("%d bans are in force a month later, want %d", got, n/20)
	}
	if rows := s.g.sentences.roll.rows(); rows > n {
		t.Errorf("the table has room for %d rows when %d are left", rows, n/20)
	}
	s.written()
	if got := storedBans(t, s.crash(dir)); got != n/20 {
		t.Errorf("%d bans are in the store a month later, want %d", got, n/20)
	}
}

// Bans stay in force when what counts as one address becomes wider, also those
// that are narrower than it is then.
func TestBansOutliveAnotherWidth(t *testing.T) {
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.IPv6Width = 128
	s := &story{T: t, g: open(t, cfg, Options{Store: StoreConfig{Kind: "embedded", Path: dir}})}
	for _, target := range []string{"2001:db8::1", "2001:db8:1::/127", "192.0.2.1"} {
		if _, err := s.g.AddBan(BanRequest{Target: target}); err != nil {
			t.Fatal(err)
		}
	}
	s.written()
	s = onDisk(t, s.crash(dir), nil)
	defer s.g.Close()
	for addr, want := range map[string]protocol.Verdict{
		"2001:db8::1": protocol.Banned, "2001:db8::2": protocol.Pass, "2001:db8:1::1": protocol.Banned, "192.0.2.1": protocol.Banned,
	} {
		s.admits(from(addr), want)
	}
	if damage := s.g.Status().Store.Recovered; damage != "" {
		t.Errorf("the store was taken for damaged: %s", damage)
	}
	for _, target := range []string{"2001:db8::/64", "2001:db8:1::/48"} {
		if got, err := s.g.Unban(UnbanRequest{Target: target}); err != nil || len(got.Bans) != 1 {
			t.Errorf("unban %s removed %+v, %v; want one ban", target, got.Bans, err)
		}
	}
}

// storedBans counts the bans in a store that nobody uses.
func storedBans(t *testing.T, dir string) int {
	t.Helper()
	c := newCounting()
	store, _, err := openBolt(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	defer store.close()
	return c.taken[bucketBans]
}

// A countingTaker counts the records of each bucket.
type countingTaker struct {
	mu    sync.Mutex
	taken map[string]int
}

func newCounting() *countingTaker { return &countingTaker{taken: make(map[string]int)} }

func (c *countingTaker) expect(string, int) {}

func (c *countingTaker) take(bucket string, list []pair) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken[bucket] += len(list)
}

// A table that knows how many will come does not grow while they do.
func TestATableWithRoomDoesNotGrow(t *testing.T) {
	const n = 200_000
	ss, _ := anIndex()
	ss.roll.reserve(n)
	parts := make(map[*rollPart]bool)
	for i := range ss.roll.parts {
		parts[ss.roll.parts[i].Load()] = true
	}
	for i := range n {
		ss.put(aBan(ss.roll.widths.address(banAddr(i)), "auth", forever))
	}
	grown := 0
	for i := range ss.roll.parts {
		if !parts[ss.roll.parts[i].Load()] {
			grown++
		}
	}
	if grown > rollParts/100 {
		t.Errorf("%d of %d parts have grown", grown, rollParts)
	}
	if ss.len() < n*999/1000 {
		t.Errorf("%d sentences of %d", ss.len(), n)
	}
}
