package proxy

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"mailreeve/guard"
)

func TestKernelFilterDropsTheBanned(t *testing.T) {
	d := newDoor(t, "[::]:0", ban("127.0.0.9/32", "auth"))
	d.keptOut("127.0.0.9")
	d.enters("127.0.0.8")
	d.enters("::1")

	d.change(guard.BanAdded, "127.0.7.0/24", "all")
	d.keptOut("127.0.7.1")
	d.keptOut("127.0.7.255")
	d.enters("127.0.8.0")

	d.change(guard.BanAdded, "::1/128", "imaps")
	d.keptOut("::1")
	d.change(guard.BanRemoved, "::1/128", "imaps")
	d.enters("::1")

	d.change(guard.BanAdded, "127.0.0.10/32", "mx") // another scope
	d.enters("127.0.0.10")

	d.change(guard.BanRemoved, "127.0.7.0/24", "all")
	d.enters("127.0.7.1")
	if st, _ := d.filter.status(); st.State != filterOn || st.Entries != 1 {
		t.Errorf("got status %+v, want on with 1 entry", st)
	}
}

// What stands between the headers of IP and TCP hides nobody: IPv6's extension
// headers, IPv4's options.
func TestKernelFilterSeesThroughOptions(t *testing.T) {
	d := newDoor(t, "[::]:0", ban("127.0.0.9/32", "auth"))
	const padding = "\x00\x00\x01\x04\x00\x00\x00\x00" // eight octets; Linux takes no more
	for _, tt := range []struct {
		from          string
		level, option int
		value         string
	}{
		{"127.0.0.9", unix.IPPROTO_IP, unix.IP_OPTIONS, strings.Repeat("\x01", 40)},
		{"::1", unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, padding},
		{"::1", unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, padding},
	} {
		d.prepare = func(fd int) error { return unix.SetsockoptString(fd, tt.level, tt.option, tt.value) }
		if tt.from == "::1" {
			d.enters(tt.from)
			d.change(guard.BanAdded, "::1/128", "auth")
		}
		d.keptOut(tt.from)
		d.change(guard.BanRemoved, "::1/128", "auth")
	}
}

func TestKernelFilterOnIPv6Only(t *testing.T) {
	d := newDoor(t, "[::1]:0", ban("::/64", "auth"),
		ban("::1/128", "auth"))
	d.keptOut("::1")
	d.change(guard.BanRemoved, "::1/128", "auth")
	d.enters("::1") // by ::/64, which the filter cannot tell from all of IPv4
}

// A connection that is there stays, whatever becomes of its address.
func TestKernelFilterLeavesConnectionsAlone(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0")
	client, server := d.enters("127.0.0.9")
	d.change(guard.BanAdded, "127.0.0.9/32", "auth")
	d.keptOut("127.0.0.9")
	talk(t, client, server)
}

// talk sends bytes both ways.
func talk(t *testing.T, client, server net.Conn) {
	t.Helper()
	for _, way := range []struct{ from, to net.Conn }{{client, server}, {server, client}} {
		if _, err := way.from.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		_ = way.to.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(way.to, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKernelFilterBanEndsByItself(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0")
	ending := ban("127.0.0.9/32", "auth")
	ending.Until = time.Now().Add(time.Hour)
	d.filter.changed(ending)
	d.keptOut("127.0.0.9")
	ending.Until = time.Now()
	d.filter.changed(ending)
	d.enters("127.0.0.9")
}

func TestKernelFilterSparesSoftBans(t *testing.T) {
	soft := ban("127.0.0.10/32", "auth")
	soft.Soft = true
	d := newDoor(t, "127.0.0.1:0", ban("127.0.0.9/32", "auth"), soft)
	d.keptOut("127.0.0.9")
	d.enters("127.0.0.10")
	soft.Prefix = netip.MustParsePrefix("127.0.0.9/32") // its owner has logged in
	d.filter.changed(soft)
	d.enters("127.0.0.9")
}

func TestKernelFilterAllowBeatsBan(t *testing.T) {
	allowed := guard.Change{Kind: guard.AllowAdded, Prefix: netip.MustParsePrefix("127.0.0.16/30"), Scope: "all"}
	d := newDoor(t, "127.0.0.1:0", ban("127.0.0.0/24", "all"), allowed)
	d.keptOut("127.0.0.9")
	d.enters("127.0.0.17")
	d.change(guard.BanAdded, "127.0.0.17/32", "auth")
	d.enters("127.0.0.17")
	d.change(guard.AllowAdded, "127.0.0.9/32", "all")
	d.enters("127.0.0.9")
	d.change(guard.AllowRemoved, "127.0.0.16/30", "all")
	d.keptOut("127.0.0.17")
	d.enters("127.0.0.9")
}

// Where there is no room in the kernel a ban less is refused after the handshake.
// An allow entry must come in once there is room, unless it has gone meanwhile.
func TestKernelFilterWithoutRoom(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0", ban("127.0.0.9/32", "auth"))
	tiny := func(name setName) *filterSet {
		set := d.filter.sets[name]
		set.close()
		var err error
		if set.trie, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.LPMTrie, KeySize: 20, ValueSize: 8,
			MaxEntries: 1, Flags: unix.BPF_F_NO_PREALLOC}); err != nil {
			t.Fatal(err)
		}
		return set
	}
	allow, all := tiny(setName{allow: true}), tiny(setName{scope: "all"})
	d.enter(KernelFilterRequired) // with programs that look at these
	d.change(guard.BanAdded, "127.0.0.10/32", "all")
	d.change(guard.BanAdded, "127.0.0.11/32", "all")
	d.keptOut("127.0.0.10")
	d.enters("127.0.0.11")
	if !all.full || all.entries != 1 {
		t.Errorf("full: %v, with %d entries; want it full with one", all.full, all.entries)
	}

	d.change(guard.AllowAdded, "127.0.0.20/32", "all")
	d.change(guard.AllowAdded, "127.0.0.10/32", "all")
	d.change(guard.AllowAdded, "127.0.0.9/32", "all")
	d.keptOut("127.0.0.9")
	d.change(guard.AllowRemoved, "127.0.0.10/32", "all")
	d.change(guard.AllowRemoved, "127.0.0.20/32", "all")
	waitFor(t, "what was late to be entered", func() bool {
		d.filter.mu.Lock()
		defer d.filter.mu.Unlock()
		return len(allow.late) == 0
	})
	d.enters("127.0.0.9")
	d.keptOut("127.0.0.10")
}

// A trusted proxy is let in even if somebody had its address banned.
func TestKernelFilterSparesTrustedProxies(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0", ban("127.0.0.0/8", "all"))
	d.keptOut("127.0.0.9")
	d.svc.TrustedProxies = []string{"127.0.0.9"}
	d.enter(KernelFilterAuto)
	d.enters("127.0.0.9")
	d.keptOut("127.0.0.8")
}

// A reload takes the filter off, and puts it on again with other scopes.
func TestKernelFilterFollowsReload(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0", ban("127.0.0.9/32", "auth"))
	d.keptOut("127.0.0.9")
	d.enter(KernelFilterOff)
	d.enters("127.0.0.9")
	d.svc.Scope = "mx"
	d.enter(KernelFilterAuto)
	d.enters("127.0.0.9")
	d.svc.Scope = "auth"
	d.enter(KernelFilterAuto)
	d.keptOut("127.0.0.9")
	if len(d.filter.sets) != 4 {
		t.Errorf("got %d tries, want those of what is allowed, all, auth and imaps", len(d.filter.sets))
	}
}

// Changes that come while what is in force is being read are newer than it.
func TestKernelFilterChangesBeatTheList(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0")
	d.enter(KernelFilterOff)
	d.filter.inForce = func(kind guard.ChangeKind, f func(guard.Change)) {
		if kind != guard.BanAdded {
			return
		}
		f(ban("127.0.0.9/32", "auth"))
		f(ban("127.0.0.11/32", "auth"))
		d.change(guard.BanRemoved, "127.0.0.9/32", "auth")
		d.change(guard.BanAdded, "127.0.0.10/32", "auth")
	}
	d.enter(KernelFilterAuto)
	d.enters("127.0.0.9")
	d.keptOut("127.0.0.10")
	d.keptOut("127.0.0.11")
}

// A start waits for what is allowed, and not until a million bans are listed.
func TestKernelFilterIsReadyBeforeItsBans(t *testing.T) {
	d := newDoor(t, "127.0.0.1:0")
	d.enter(KernelFilterOff)
	var asked []guard.ChangeKind
	d.filter.inForce = func(kind guard.ChangeKind, f func(guard.Change)) {
		asked = append(asked, kind)
		if kind == guard.BanAdded {
			f(ban("127.0.0.9/32", "auth"))
		}
	}
	services := []*service{d.svc}
	plan, err := d.filter.prepare(KernelFilterRequired, services)
	if err != nil {
		t.Fatal(err)
	}
	if len(asked) != 1 || asked[0] != guard.AllowAdded {
		t.Errorf("asked for %v to make it ready, want what is allowed", asked)
	}
	d.filter.enter(plan, services, map[string]*listener{d.svc.Address: d.l})
	d.filter.filling.Wait()
	d.keptOut("127.0.0.9")
}

func TestKernelFilterSetting(t *testing.T) {
	for _, tt := range []struct {
		in, want KernelFilter
		ok       bool
	}{
		{"", KernelFilterOff, true},
		{"auto", KernelFilterAuto, true},
		{"off", KernelFilterOff, true},
		{"required", KernelFilterRequired, true},
		{"on", "on", false},
	} {
		e := Enforce{tt.in}
		if err := e.normalize(); (err == nil) != tt.ok || e.KernelFilter != tt.want {
			t.Errorf("%q: got %q, %v", tt.in, e.KernelFilter, err)
		}
	}
}
