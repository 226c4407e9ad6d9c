package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"

	"github.com/gaissmai/bart"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// How long a look at a million bans takes is the memory's affair more than the
// table's: mostly it is the wait for one line that no cache has. So others that
// could answer Admit's question look in the same rounds, each at the same list,
// but for scopes and ends, which only the guard knows.

// A look asks whether a client is banned.
type look struct {
	name string
	at   func(o *guard.Origin) bool
}

// otherLooks are maps, one for each width as the list has them, and the trie
// that the guard takes for lists of networks.
func otherLooks(n int) []look {
	maps := map[int]map[[16]byte]int64{}
	trie := new(bart.Lite)
	for i := range n {
		p := bannedPrefix(i)
		trie.Insert(p)
		bits := p.Bits()
		if p.Addr().Is4() {
			bits += 96
		}
		if maps[bits] == nil {
			maps[bits] = map[[16]byte]int64{}
		}
		maps[bits][p.Addr().As16()] = 1
	}
	of := func(widths ...int) (list []widthMap) {
		for _, bits := range widths {
			list = append(list, widthMap{bits, maps[bits]})
		}
		return list
	}
	v4, v6 := of(128, 120, 116), of(64, 48)
	return []look{
		{"a Go map for each width", func(o *guard.Origin) bool {
			if o.Addr.Is4() {
				return covered(v4, o.Addr.As16())
			}
			return covered(v6, o.Addr.As16())
		}},
		{"bart.Lite", func(o *guard.Origin) bool { return trie.Contains(o.Addr) }},
	}
}

// A widthMap has the networks of one width, IPv4 v4-mapped.
type widthMap struct {
	bits int
	of   map[[16]byte]int64
}

// covered looks for a network that an address is in, the narrowest first.
func covered(maps []widthMap, a [16]byte) bool {
	for _, m := range maps {
		if m.bits < 128 {
			clear(a[m.bits/8+1:])
			a[m.bits/8] &^= 0xff >> (m.bits % 8)
		}
		if m.of[a] != 0 {
			return true
		}
	}
	return false
}

// admitTime is how long Admit takes, in nanoseconds of CPU, the median of three
// rounds, less what it takes to go through the clients; the others' figures
// become a note.
func (b *bench) admitTime(g *guard.Guard, n int) (float64, error) {
	nothing := look{"nothing", func(o *guard.Origin) bool { return o.Conn != 0 }}
	looks := append([]look{{"Admit", func(o *guard.Origin) bool { return g.Admit(o) == protocol.Banned }}}, otherLooks(n)...)
	times := make([][]float64, len(looks))
	for range 3 {
		walk, err := lookTime(nothing, n)
		if err != nil {
			return 0, err
		}
		for i, l := range looks {
			took, err := lookTime(l, n)
			if err != nil {
				return 0, err
			}
			times[i] = append(times[i], took-walk)
		}
	}
	admit := spreadOf(times[0]).median
	var others []string
	for i, l := range looks[1:] {
		ratios := make([]float64, len(times[0]))
		for round := range ratios {
			ratios[round] = times[0][round] / times[i+1][round]
		}
		others = append(others, fmt.Sprintf("%s %.0f ns (%.2f×)", l.name, spreadOf(times[i+1]).median, spreadOf(ratios).median))
	}
	b.note("Admit at %d bans: %.0f ns; in the same rounds %s.", n, admit, strings.Join(others, ", "))
	return admit, nil
}

// lookTime is the CPU that a look takes, on all cores at once. Every other client
// is banned.
func lookTime(l look, n int) (float64, error) {
	const times = 1 << 20
	self := []int{os.Getpid()}
	before, err := cpuTime(self)
	var group sync.WaitGroup
	for id := range runtime.NumCPU() {
		group.Go(func() {
			o := guard.Origin{Listener: "mx", Scope: "mx", Protocol: "smtp", Upstream: "smtp"}
			for i := range times {
				// A stride that leaps about, over twice as many as are banned.
				o.Addr = clientOf((i*7919 + id) % (2 * n))
				l.at(&o)
			}
		})
	}
	group.Wait()
	after, afterErr := cpuTime(self)
	if err := errors.Join(err, afterErr); err != nil {
		return 0, err
	}
	return float64((after - before).Nanoseconds()) / float64(times*runtime.NumCPU()), nil
}
