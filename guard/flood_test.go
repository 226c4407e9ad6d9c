package guard

import (
	"encoding/binary"
	"net/netip"
	"os"
	"testing"

	"mailreeve/protocol"
)

// Whoever owns a /32 of IPv6 has four billion addresses as we count them. The
// tables do not grow with them, what is evicted is counted, and who was banned
// before still is. Ten million take minutes, so that they are played only if
// asked for: MAILREEVE_SOURCES=10000000.
func TestManySourcesLeaveMemoryFlat(t *testing.T) {
	const fullSources = 10_000_000
	sources, bound := 60_000, 3_000
	if os.Getenv("MAILREEVE_SOURCES") == "10000000" {
		sources, bound = fullSources, defaultMaxAddresses
	}
	cfg := DefaultConfig()
	cfg.MaxAddresses, cfg.MaxNetworks = bound, bound/2
	g := open(t, cfg, Options{Store: StoreConfig{Kind: "memory"}})
	defer g.Close()
	if _, err := g.AddBan(BanRequest{Target: "192.0.2.1", For: Forever}); err != nil {
		t.Fatal(err)
	}
	o := mx("2001:db8::1")
	var full uint64
	for i := range sources {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:], 0x20010db8<<32|uint64(i)*2654435761&(1<<32-1))
		o.Addr = netip.AddrFrom16(b)
		g.Report(o, "", protocol.Event{Kind: protocol.Loitering})
		if i+1 == sources/5 {
			full = heapInUse()
		}
		if (i+1)%(sources/5) == 0 {
			g.flush()
			t.Logf("%d sources: %d MiB in use", i+1, heapInUse()>>20)
		}
	}
	st := g.Status()
	t.Logf("%d tracked, %d evicted", st.Addresses, st.Evictions)
	if st.Addresses > bound || st.Evictions < uint64(sources-bound) {
		t.Errorf("%d tracked and %d evicted of %d, with a bound of %d", st.Addresses, st.Evictions, sources, bound)
	}
	if now := heapInUse(); now > full+full/10+4<<20 {
		t.Errorf("%d bytes in use, after a fifth of the sources it was %d", now, full)
	}
	if v := g.Admit(mx("192.0.2.1")); v != protocol.Banned {
		t.Errorf("who was banned before is let in: %v", v)
	}
}

// The points of a network whose addresses are evicted one after the other stay,
// in few marks and without evidence, however many there were.
func TestWhatIsEvictedIsFoldedIntoFewMarks(t *testing.T) {
	const n, hour = 3000, 3_600_000
	var w window
	for i := range n {
		w.fold(mark{at: int64(i) * hour / n, points: 1000, value: uint32(i + 1), trace: &trace{}}, hour/foldedMarks)
	}
	if len(w.marks) > foldedMarks+1 || w.sum != n*1000 {
		t.Errorf("%d marks that add up to %d, want at most %d that add up to %d", len(w.marks), w.sum, foldedMarks+1, n*1000)
	}
	for _, m := range w.marks {
		if m.trace != nil || m.value != 0 {
			t.Errorf("a mark kept what led to it: %+v", m)
		}
	}
}
