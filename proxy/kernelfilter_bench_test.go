package proxy

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"mailreeve/guard"
)

// BenchmarkKernelFilter tells, for a number of bans, what a start costs
// (start-ms before the listeners open, fill-ms in all, B/ban), what one change
// costs (ns/change), and how long the program takes for a SYN that is let in
// (ns/op) after two empty tries and the full one.
func BenchmarkKernelFilter(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkKernelFilter(b, n) })
	}
}

func benchmarkKernelFilter(b *testing.B, n int) {
	needKernelFilter(b)
	random := rand.New(rand.NewPCG(1, 2))
	bans := make([]guard.Change, n)
	for i := range bans {
		bans[i] = randomBan(random)
	}
	f := newKernelFilter(func(kind guard.ChangeKind, yield func(guard.Change)) {
		if kind != guard.BanAdded {
			return
		}
		for _, ch := range bans {
			yield(ch)
		}
	}, slog.New(slog.DiscardHandler))
	svc := &service{Listener: Listener{Name: "imaps", Scope: "auth"}}
	before := slab(b)
	began := moment()
	plan, err := f.prepare(KernelFilterRequired, []*service{svc})
	if err != nil {
		b.Fatal(err)
	}
	prepared := moment() - began
	f.fillBans(plan.unfilled)
	filled := moment() - began
	after := slab(b)
	program := plan.programs["imaps"]
	b.Cleanup(func() { program.Close(); f.close() })

	began = moment()
	const changes = 2000
	for i := range changes {
		ch := bans[i%n]
		ch.Kind = guard.BanRemoved
		f.changed(ch)
		ch.Kind = guard.BanAdded
		f.changed(ch)
	}
	changed := moment() - began

	// The kernel runs a program only on whole frames, without TCP's header at
	// the front: what the program takes for the TCP flags is the second byte
	// of the source, 2.
	frame := make([]byte, 64)
	frame[12], frame[13] = 0x08, 0x00
	frame[14] = 0x45
	frame[26], frame[27], frame[28], frame[29] = 10, 2, 3, 4
	verdict, took, err := program.Benchmark(frame, 1_000_000, nil)
	if err != nil {
		b.Skipf("the program cannot be timed here: %v", err)
	}
	if int32(verdict) != passWhole {
		b.Fatalf("got verdict %d, want the packet whole", verdict)
	}
	for b.Loop() {
	}
	b.ReportMetric(float64(after-before)/float64(n), "B/ban")
	b.ReportMetric(float64(prepared)/1e6, "start-ms")
	b.ReportMetric(float64(filled)/1e6, "fill-ms")
	b.ReportMetric(float64(changed)/(2*changes), "ns/change")
	b.ReportMetric(float64(took.Nanoseconds()), "ns/op")
}

// randomBan is an IPv4 address three times out of four, else a /64. None is in
// 10.2.0.0/16.
func randomBan(random *rand.Rand) guard.Change {
	ch := guard.Change{Kind: guard.BanAdded, Scope: "auth"}
	if random.IntN(4) == 0 {
		a := [16]byte{0x20, 0x01, 0x0d, 0xb8}
		for i := 4; i < 8; i++ {
			a[i] = byte(random.Uint32())
		}
		ch.Prefix = netip.PrefixFrom(netip.AddrFrom16(a), 64)
		return ch
	}
	a := [4]byte{byte(11 + random.IntN(200)), byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())}
	ch.Prefix = netip.PrefixFrom(netip.AddrFrom4(a), 32)
	return ch
}

// slab is what the kernel has allocated in small pieces, in bytes. The tries
// are there (what fdinfo tells of them leaves out their inner nodes), and all
// else that happens on the machine.
func slab(b *testing.B) int {
	b.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Slab:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n << 10
		}
	}
	return 0
}
