package guard

import (
	"fmt"
	"testing"
	"time"

	"mailreeve/protocol"
)

// What is taken back a moment after it was pronounced, and pronounced again,
// is so at every node, whoever did it and whatever the clocks say.
func TestChangesOfOneMomentComeInTheirOrder(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	back := func() time.Time { return time.Now().Add(-3 * time.Hour) }
	one := startNode(t, "", t.TempDir(), srv.shared(), nil, nil)
	two := startNode(t, one.opt.Store.GuessKey, t.TempDir(), srv.shared(), nil, back)
	one.synced()
	two.synced()
	ban := func(n *node, addr string) {
		if _, err := n.g.AddBan(BanRequest{Target: addr}); err != nil {
			t.Fatal(err)
		}
	}
	unban := func(n *node, addr string) {
		if r, err := n.g.Unban(UnbanRequest{Target: addr}); err != nil || len(r.Bans) != 1 {
			t.Fatalf("unban %s: removed %+v, %v", addr, r, err)
		}
	}
	for i := range 5 {
		addr := fmt.Sprintf("192.0.2.%d", i+1)
		// At one node, without a pause.
		ban(one, addr)
		unban(one, addr)
		ban(one, addr)
		two.comesTo(addr, protocol.Banned)
		// By turns, each as soon as it has heard of the other's.
		unban(two, addr)
		one.comesTo(addr, protocol.Pass)
		ban(one, addr)
		two.comesTo(addr, protocol.Banned)
		unban(one, addr)
		two.comesTo(addr, protocol.Pass)
		ban(two, addr)
		unban(two, addr)
		ban(two, addr)
		one.comesTo(addr, protocol.Banned)
	}
	unban(two, "192.0.2.5")
	one.comesTo("192.0.2.5", protocol.Pass)
	fresh := startNode(t, one.opt.Store.GuessKey, t.TempDir(), srv.shared(), nil, nil)
	fresh.synced()
	for i := range 5 {
		want := protocol.Banned
		if i == 4 {
			want = protocol.Pass
		}
		for _, n := range []*node{one, two, fresh} {
			n.comesTo(fmt.Sprintf("192.0.2.%d", i+1), want)
		}
	}
}

// A node whose clock is wrong does not know by how much until it has reached
// the store: what it decides before comes to the others with the right time.
func TestDecidedWithAWrongClockBeforeTheStoreWasThere(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	srv.kill()
	ahead := func() time.Time { return time.Now().Add(3 * time.Hour) }
	wrong := startNode(t, "", t.TempDir(), srv.shared(), nil, ahead)
	if _, err := wrong.g.AddBan(BanRequest{Target: "192.0.2.1"}); err != nil {
		t.Fatal(err)
	}
	srv.start()
	wrong.back()
	right := startNode(t, wrong.opt.Store.GuessKey, t.TempDir(), srv.shared(), nil, nil)
	right.comesTo("192.0.2.1", protocol.Banned)
	if left := time.Until(right.g.Bans(BanFilter{})[0].Until); left > time.Hour+time.Second || left < 59*time.Minute {
		t.Errorf("the ban ends in %v, want an hour", left)
	}
	// What another decides later is later.
	if _, err := right.g.Unban(UnbanRequest{Target: "192.0.2.1"}); err != nil {
		t.Fatal(err)
	}
	wrong.comesTo("192.0.2.1", protocol.Pass)
}

func TestVersions(t *testing.T) {
	ahead := int64(0)
	v := newVersions(func() int64 { return ahead })
	const id = 7
	if at := v.next(id, 1000); at != 1000 {
		t.Errorf("the first is %d, want 1000", at)
	}
	if at := v.next(id, 1000); at != 1001 {
		t.Errorf("another of the same time is %d, want 1001", at)
	}
	ahead = -500 // now it is known that our clock is ahead
	if s := v.compare(id, 502, 1); s != versionNew {
		t.Errorf("502 is %d to what is 501 by the fleet's clock, want it new", s)
	}
	v.heard(id, 9000, 1, true) // by a node whose clock is far ahead
	if at := v.next(id, 1100); at != 9501 {
		t.Errorf("after what is 9500 here comes %d, want 9501", at)
	}
	v.told(id, 9001)
	for at, want := range map[int64]versionStanding{9000: versionOld, 9001: versionSame, 9002: versionNew} {
		if got := v.compare(id, at, 2); got != want {
			t.Errorf("%d is %d, want %d", at, got, want)
		}
	}
	e, known := v.get(id)
	if _, ok := v.again(id, e, known, 0); !ok {
		t.Error("what has not changed is not told again")
	}
	v.next(id, 20_000)
	if _, ok := v.again(id, e, known, 0); ok {
		t.Error("what has changed meanwhile is told as it was")
	}
	v.heard(8, 1, 1, false)
	v.tidy(map[uint64]struct{}{id: {}}, 10*time.Hour.Milliseconds())
	if _, known := v.get(8); known {
		t.Error("an old version of what is no more is kept")
	}
	if _, known := v.get(id); !known {
		t.Error("the version of what is there is forgotten")
	}
}
