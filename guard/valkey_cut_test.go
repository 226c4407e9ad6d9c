package guard

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"mailreeve/protocol"
)

// A farStore is a server in a network namespace, with two cables to it.
type farStore struct {
	*server
	netns  string
	cables [2]cable
}

type cable struct{ near, far, address string }

// ip runs the command of that name.
func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func startFarStore(t *testing.T, n int) *farStore {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	name := fmt.Sprintf("mr%d-%d", os.Getpid(), n)
	f := &farStore{netns: name}
	ip(t, "netns", "add", name)
	t.Cleanup(func() { ip(t, "netns", "del", name) }) // and its cables
	for i := range f.cables {
		// 198.18.0.0/15 is for tests of networks (RFC 2544).
		net := fmt.Sprintf("198.18.%d", (os.Getpid()+n*2+i)%256)
		c := &f.cables[i]
		*c = cable{near: fmt.Sprintf("m%d%d%c", os.Getpid(), n, 'a'+i), far: fmt.Sprint("far", i), address: net + ".2"}
		ip(t, "link", "add", c.near, "type", "veth", "peer", "name", c.far, "netns", name)
		ip(t, "addr", "add", net+".1/30", "dev", c.near)
		ip(t, "link", "set", c.near, "up")
		ip(t, "-n", name, "addr", "add", c.address+"/30", "dev", c.far)
		ip(t, "-n", name, "link", "set", c.far, "up")
	}
	f.server = &server{t: t, netns: name, addr: f.cables[1].address + ":6379", dir: t.TempDir(),
		args: []string{"--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no"}}
	f.start()
	t.Cleanup(f.kill)
	return f
}

// over gives the configuration of a node that has a cable of its own.
func (f *farStore) over(i int) SharedStoreConfig {
	c := f.shared()
	c.Addresses = []string{f.cables[i].address + ":6379"}
	c.Timeout = Duration(200 * time.Millisecond)
	return c
}

// cuts are ways in which a network stops to carry one node's packets. No end is
// told: nothing is refused, nothing is closed.
var cuts = map[string]struct{ begin, end func(*testing.T, *farStore) }{
	"the cable is pulled": {
		begin: func(t *testing.T, f *farStore) { ip(t, "-n", f.netns, "link", "set", f.cables[0].far, "down") },
		end:   func(t *testing.T, f *farStore) { ip(t, "-n", f.netns, "link", "set", f.cables[0].far, "up") },
	},
	"the answers vanish": {
		begin: func(t *testing.T, f *farStore) { ip(t, "-n", f.netns, "route", "add", "blackhole", f.nearAddr()) },
		end:   func(t *testing.T, f *farStore) { ip(t, "-n", f.netns, "route", "del", "blackhole", f.nearAddr()) },
	},
}

func (f *farStore) nearAddr() string { return strings.TrimSuffix(f.cables[0].address, ".2") + ".1/32" }

// One node's way to the store is cut, the other's is not. Each decides; when
// the way is there again both know all, also if the stream has been trimmed
// past what the one has missed.
func TestTheNetworkIsCut(t *testing.T) {
	n := 0
	for name, cut := range cuts {
		for what, trim := range map[string]bool{"": false, ", and the stream is trimmed": true} {
			n++
			t.Run(name+what, func(t *testing.T) {
				far := startFarStore(t, n)
				one := startNode(t, "", t.TempDir(), far.over(0), nil, nil)
				two := startNode(t, one.opt.Store.GuessKey, t.TempDir(), far.over(1), nil, nil)
				one.synced()
				two.synced()
				one.earnsABan("192.0.2.3", "carol")
				two.comesTo("192.0.2.3", protocol.Banned)
				one.guesses("192.0.2.1", "alice", 3)
				two.earnsABan("192.0.2.4", "dave")
				one.comesTo("192.0.2.4", protocol.Banned)

				cut.begin(t, far)
				one.guesses("192.0.2.1", "bob", 2)
				one.earnsABan("192.0.2.5", "frank") // bans alone
				one.away()
				two.earnsABan("192.0.2.6", "grace")
				two.guesses("192.0.2.1", "heidi", 2)
				if _, err := two.g.Unban(UnbanRequest{Target: "192.0.2.4"}); err != nil {
					t.Fatal(err)
				}
				for addr, want := range map[string]protocol.Verdict{
					"192.0.2.3": protocol.Banned, "192.0.2.4": protocol.Banned, "192.0.2.5": protocol.Banned, "192.0.2.6": protocol.Pass,
				} {
					one.admits(from(addr), want)
				}
				if !two.g.Status().Store.Shared.Connected {
					t.Error("the other node is cut off, too")
				}
				two.back() // has told all
				if trim {
					eventually(t, 20*time.Second, "the node knows that it may miss something", func() bool {
						return one.g.fleet.follower.doubts.Load() > 0
					})
					redisCLI(t, far.client(t), "XTRIM", "mailreeve:changes", "MAXLEN", "0")
				}

				cut.end(t, far)
				one.back()
				for _, n := range []*node{one, two} {
					n.comesTo("192.0.2.4", protocol.Pass)
					for _, addr := range []string{"192.0.2.3", "192.0.2.5", "192.0.2.6"} {
						n.comesTo(addr, protocol.Banned)
					}
					eventually(t, 10*time.Second, "7 points, each counted once", func() bool { return n.points("192.0.2.1") == 7 })
				}
				if away, back := one.said.times("the store is away"), one.said.times("the store is back"); away != 1 || back != 1 {
					t.Errorf("said %d times that it is away and %d times that it is back:\n%s", away, back, one.said.text.String())
				}
			})
		}
	}
}
