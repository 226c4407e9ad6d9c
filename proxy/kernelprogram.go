package proxy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// The program of the kernel filter. The kernel runs it for every packet that
// reaches a listening socket: SYNs, and the last packet of each handshake. It
// lets everything pass but a SYN whose source is banned, so that a socket that
// has inherited it from its listener is not harmed by it.

// A filterKey is an address or network as the kernel's LPM tries take it.
// IPv4 is v4-mapped.
type filterKey struct {
	Bits uint32
	Addr [16]byte
}

// mappedV4 is the block that all of IPv4 has in the tries.
var mappedV4 = netip.MustParsePrefix("::ffff:0:0/96")

// newFilterKey gives a network's key.
func newFilterKey(p netip.Prefix) (k filterKey, ok bool) {
	if !p.IsValid() {
		return k, false
	}
	p = p.Masked()
	k = filterKey{Bits: uint32(p.Bits()), Addr: p.Addr().As16()}
	if p.Addr().Is4() {
		k.Bits += 96
	}
	return k, true
}

// reachesIPv4 tells whether a key would match IPv4 though the network is an
// IPv6 one, so wide that it holds the v4-mapped block.
func (k filterKey) reachesIPv4(p netip.Prefix) bool {
	return p.Addr().Is6() && p.Bits() < mappedV4.Bits() && p.Contains(mappedV4.Addr())
}

// A bootTime is a moment in nanoseconds since the machine started, the clock
// that a program in the kernel can read. Bans end by it without our doing: if
// we are late, or stopped, nobody is dropped for longer than he was banned.
type bootTime uint64

// forever lies behind every other moment.
const forever = bootTime(1<<64 - 1)

// bootTimeOf gives the moment of a wall clock's time; the zero time is
// forever.
func bootTimeOf(t time.Time) bootTime {
	if t.IsZero() {
		return forever
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	return bootTime(max(0, now.Nano()+int64(time.Until(t))))
}

// maxFiltered bounds a trie. The kernel allocates entries as they come; what is
// beyond is refused after the handshake instead. An entry takes about 145
// bytes of the kernel's memory.
const maxFiltered = 4 << 20

// newTrie makes an LPM trie of networks with a bootTime each.
func newTrie(name string) (*ebpf.Map, error) {
	return ebpf.NewMap(&ebpf.MapSpec{
		Name: name, Type: ebpf.LPMTrie, KeySize: 20, ValueSize: 8,
		MaxEntries: maxFiltered, Flags: unix.BPF_F_NO_PREALLOC,
	})
}

// newTally makes a counter that every CPU has of its own.
func newTally() (*ebpf.Map, error) {
	return ebpf.NewMap(&ebpf.MapSpec{
		Name: "reeve_dropped", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1,
	})
}

// readTally sums a counter up.
func readTally(m *ebpf.Map) uint64 {
	var cpus []uint64
	if err := m.Lookup(uint32(0), &cpus); err != nil {
		return 0
	}
	var sum uint64
	for _, n := range cpus {
		sum += n
	}
	return sum
}

// A filterSpec is what a listener's program looks at.
type filterSpec struct {
	pass    []*ebpf.Map // tries of networks that are never dropped
	bans    []*ebpf.Map // tries of networks that are, until their bootTime
	dropped *ebpf.Map   // counts
}

// load has the kernel check the program and make it ready.
func (s filterSpec) load() (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "reeve_filter", Type: ebpf.SocketFilter,
		Instructions: s.instructions(), License: "Dual MIT/GPL",
	})
	if err != nil {
		return nil, fmt.Errorf("load program: %w", err)
	}
	return p, nil
}

// Where the program keeps things below its frame pointer: the key of its
// look-ups, the TCP flags, and the index of its counter.
const (
	stackKey   = -20 // filterKey
	stackAddr  = -16
	stackFlags = -24
	stackIndex = -28
)

// What it reads of a packet.
const (
	contextProtocol = 16 // __sk_buff.protocol: an ethertype in network order
	tcpFlags        = 13 // offset in the TCP header
	tcpSYN, tcpACK  = 0x02, 0x10
	ipv4Source      = 12 // offset in the IP header
	ipv6Source      = 8
	fromNetwork     = 1 // BPF_HDR_START_NET
	passWhole       = -1
)

// instructions writes the program. r6 holds the packet, r7 a ban's end.
func (s filterSpec) instructions() asm.Instructions {
	v4Block := int32(binary.NativeEndian.Uint32([]byte{0, 0, 0xff, 0xff}))
	p := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		// A SYN, and not the answer to one?
		asm.Mov.Imm(asm.R2, tcpFlags),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackFlags),
		asm.Mov.Imm(asm.R4, 1),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.RFP, stackFlags, asm.Byte),
		asm.And.Imm(asm.R1, tcpSYN|tcpACK),
		asm.JNE.Imm(asm.R1, tcpSYN, "pass"),
		// Its source, at full length, is the key.
		asm.StoreImm(asm.RFP, stackKey, 128, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, contextProtocol, asm.Word),
		asm.JEq.Imm(asm.R1, networkOrder(unix.ETH_P_IP), "ipv4"),
		asm.JNE.Imm(asm.R1, networkOrder(unix.ETH_P_IPV6), "pass"),
		asm.Mov.Imm(asm.R2, ipv6Source),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackAddr),
		asm.Mov.Imm(asm.R4, 16),
		asm.Ja.Label("read"),
		asm.StoreImm(asm.RFP, stackAddr, 0, asm.Word).WithSymbol("ipv4"),
		asm.StoreImm(asm.RFP, stackAddr+4, 0, asm.Word),
		asm.StoreImm(asm.RFP, stackAddr+8, int64(v4Block), asm.Word),
		asm.Mov.Imm(asm.R2, ipv4Source),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackAddr+12),
		asm.Mov.Imm(asm.R4, 4),
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("read"),
		asm.Mov.Imm(asm.R5, fromNetwork),
		asm.FnSkbLoadBytesRelative.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
	}
	for _, m := range s.pass {
		p = append(p, lookup(m, stackKey)...)
		p = append(p, asm.JNE.Imm(asm.R0, 0, "pass"))
	}
	for i, m := range s.bans {
		next := fmt.Sprintf("next%d", i)
		p = append(p, lookup(m, stackKey)...)
		p = append(p,
			asm.JEq.Imm(asm.R0, 0, next),
			asm.LoadMem(asm.R7, asm.R0, 0, asm.DWord),
			asm.FnKtimeGetBootNs.Call(),
			asm.JLT.Reg(asm.R0, asm.R7, "drop"),
			asm.Mov.Imm(asm.R0, 0).WithSymbol(next),
		)
	}
	p = append(p,
		asm.Mov.Imm(asm.R0, passWhole).WithSymbol("pass"),
		asm.Return(),
		asm.StoreImm(asm.RFP, stackIndex, 0, asm.Word).WithSymbol("drop"),
	)
	p = append(p, lookup(s.dropped, stackIndex)...)
	return append(p,
		asm.JEq.Imm(asm.R0, 0, "dropped"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("dropped"),
		asm.Return(),
	)
}

// lookup leaves in r0 where a map has the value of the key at that place on
// the stack, 0 if it has none.
func lookup(m *ebpf.Map, key int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		asm.FnMapLookupElem.Call(),
	}
}

// networkOrder is how a program sees a 16-bit number of the wire.
func networkOrder(n uint16) int32 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return int32(binary.NativeEndian.Uint16(b[:]))
}
