package guard

import (
	"fmt"
	"math"
	"strings"
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
		// The first ban is not what the other is to have heard of.
		one.back()
		last := fmt.Sprintf("198.51.100.%d", i+1)
		ban(one, last)
		two.comesTo(last, protocol.Banned)
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

// A ban that is given another end keeps its beginning. A node that was off takes
// that end over, though it knows a ban of that beginning.
func TestANewEndIsHeardByWhoWasOff(t *testing.T) {
	t.Parallel()
	nodes := fleetOf(t, 2, startServer(t).shared(), nil)
	one, two := nodes[0], nodes[1]
	one.bans("192.0.2.1")
	two.comesTo("192.0.2.1", protocol.Banned)
	two.stop()
	if _, err := one.g.AddBan(BanRequest{Target: "192.0.2.1", For: Duration(5 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	two = two.restart(false)
	two.synced()
	eventually(t, 10*time.Second, "the ban lasts five hours", func() bool {
		b := two.g.Bans(BanFilter{})
		return len(b) == 1 && time.Until(b[0].Until) > 4*time.Hour
	})
}

func TestVersions(t *testing.T) {
	ahead, timed := int64(0), false
	const me, other, id = 5, 6, 7
	v := newVersions(me, func() (int64, bool) { return ahead, timed })
	if s := v.next(id, 1000); s != (stamp{1000, me, true}) {
		t.Errorf("the first is %+v, want 1000 of our own clock", s)
	}
	if s := v.next(id, 1000); s != (stamp{1001, me, true}) {
		t.Errorf("another of the same time is %+v, want 1001", s)
	}
	ahead, timed = -500, true // now it is known that our clock is ahead
	if s := v.compare(id, stamp{at: 502}, 1); s != versionNew {
		t.Errorf("502 is %d to what is 501 by the fleet's clock, want it new", s)
	}
	v.heard(id, stamp{at: 9000}, 1, true) // by a node whose clock is far ahead
	if s := v.next(id, 1100); s != (stamp{9001, me, false}) {
		t.Errorf("after 9000 comes %+v, want 9001", s)
	}
	v.told(id, stamp{at: 9001, node: me})
	for s, want := range map[stamp]versionStanding{
		{at: 9000, node: other}: versionOld, {at: 9001, node: me - 1}: versionOld, {at: 9001, node: me}: versionSame,
		{at: 9001, node: other}: versionNew, {at: 9002, node: me - 1}: versionNew,
	} {
		if got := v.compare(id, s, 2); got != want {
			t.Errorf("%+v is %d, want %d", s, got, want)
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
	v.heard(8, stamp{at: 1}, 1, false)
	v.tidy(map[uint64]struct{}{id: {}}, 10*time.Hour.Milliseconds())
	if _, known := v.get(8); known {
		t.Error("an old version of what is no more is kept")
	}
	if _, known := v.get(id); !known {
		t.Error("the version of what is there is forgotten")
	}
}

// Of two changes of one millisecond that did not know of each other the store
// keeps the same one, whichever comes first, and tells the nodes of no other
// after it.
func TestTheStoreKeepsTheSameOfTwoChangesInBothOrders(t *testing.T) {
	t.Parallel()
	c := startServer(t).client(t)
	k := sentenceKey{kind: banned, scope: "all", key: key{kind: byAddress, prefix: mustAddr("192.0.2.1")}}
	ban := &sentence{sentenceKey: k, cause: cause{rule: "x"}, since: 1e12, until: forever, forget: forever, repeats: 1, active: true}
	changes := []record{
		stamped(record{bucket: bucketBans, key: k.storeKey()}, stamp{at: 1e12, node: 1}),
		stamped(ban.record(), stamp{at: 1e12, node: 2}),
	}
	for i, order := range [][]int{{0, 1}, {1, 0}} {
		n := names{fmt.Sprintf("order-%d:", i)}
		for _, node := range order {
			link := &link{log: quiet, clock: time.Now}
			s := &share{link: link, names: n, script: newScript(recordsScript), node: fmt.Sprint("node", node), versions: newVersions(1, link.fleetClock)}
			if err := s.send(t.Context(), c, changes[node:node+1], true); err != nil {
				t.Fatal(err)
			}
		}
		have, _ := redisCLI(t, c, "HGET", n.history(sentenceName(k)), "all").ToString()
		if want := "1000000000000 2 "; !strings.HasPrefix(have, want) {
			t.Errorf("in the order %v the store has %q, want %q", order, have, want)
		}
		if there, _ := redisCLI(t, c, "HEXISTS", n.prefix+sentenceName(k), "all").AsInt64(); there != 1 {
			t.Errorf("in the order %v the ban is not in the store", order)
		}
		if told, _ := redisCLI(t, c, "XLEN", n.changes()).AsInt64(); told != int64(len(order)-i) {
			t.Errorf("in the order %v the nodes are told of %d changes, want %d", order, told, len(order)-i)
		}
	}
}

// An answer that took long tells little of the fleet's clock, and does not spoil
// what a quick one has told.
func TestTheFleetsClock(t *testing.T) {
	k := &link{}
	if _, known := k.fleetClock(); known {
		t.Error("the clock is known before the store was asked")
	}
	for _, step := range []struct{ least, most, ahead, steady int64 }{
		{4900, 5100, 5000, 5000}, // a quick answer
		{4000, 7000, 5000, 5000}, // a slow one that agrees
		{5050, 5060, 5055, 5000}, // a quicker one that knows better
		{5057, 5058, 5055, 5000}, // noise
		{6500, 6502, 6501, 6501}, // somebody has set a clock
		{-9000, -8000, -8500, -8500},
	} {
		if err := k.setAhead(step.least, step.most); err != nil {
			t.Error(err)
		}
		steady, known := k.fleetClock()
		if ahead := k.ahead.Load(); ahead != step.ahead || steady != step.steady || !known {
			t.Errorf("after an answer of %d to %d: %d ahead, for versions %d (%v), want %d and %d", step.least, step.most, ahead, steady, known, step.ahead, step.steady)
		}
	}
}

// A clock that cannot be is no clock: what is told by it could not be written.
func TestAnImpossibleClockIsRefused(t *testing.T) {
	k := &link{}
	for _, ahead := range []int64{maxAhead + 1, -maxAhead - 1, math.MaxInt64, math.MinInt64} {
		if err := k.setAhead(ahead, ahead); err == nil || k.ahead.Load() != 0 {
			t.Errorf("%d ms ahead: error %v, and %d is taken over", ahead, err, k.ahead.Load())
		}
	}
	if err := k.setAhead(maxAhead, maxAhead); err != nil || k.ahead.Load() != maxAhead {
		t.Errorf("%d ms ahead: error %v, and %d is taken over", int64(maxAhead), err, k.ahead.Load())
	}
}
