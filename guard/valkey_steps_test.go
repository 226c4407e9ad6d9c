package guard

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"mailreeve/protocol"
)

// slowSteps are what may happen to one step on its way to the store and back.
var slowSteps = map[string]func(srv *server, w *storeWay, step func()){
	"the question is late": func(_ *server, w *storeWay, step func()) {
		w.questions.Lock()
		defer w.questions.Unlock()
		step()
	},
	"the answer is late": func(_ *server, w *storeWay, step func()) {
		w.answers.Lock()
		defer w.answers.Unlock()
		step()
	},
	"the answer is lost": func(_ *server, w *storeWay, step func()) {
		w.answers.Lock()
		step()
		w.cut()
		w.answers.Unlock()
	},
	"the store stands still": func(srv *server, _ *storeWay, step func()) {
		srv.signal(syscall.SIGSTOP)
		defer srv.signal(syscall.SIGCONT)
		step()
	},
}

// guess sends the i-th of an address's guesses, which must go.
func (n *node) guess(addr string, i int, reserve, settle func(step func())) {
	n.Helper()
	var a *Attempt
	reserve(func() { a, _ = n.ask(from(addr), plain("user"+addr, fmt.Sprint("guess ", i))) })
	if a == nil {
		n.Fatalf("guess %d from %s did not go", i, addr)
	}
	settle(func() { n.g.Settle(a, protocol.Failure, "535 5.7.8") })
}

// slowCases are which steps of ten guesses are slow: of the guess whose turn it
// is, or of all that go through the slow way.
var slowCases = map[string]struct{ reserve, settle, all bool }{
	"one reservation": {reserve: true},
	"one settlement":  {settle: true},
	"one guess":       {reserve: true, settle: true},
	"every guess":     {reserve: true, settle: true, all: true},
}

// However slow a step is, ten failures from an address ban it at all nodes, when
// the store is there again, without another attempt; and no more than ten
// guesses reach a server.
func TestTenFailuresBanHoweverSlowAStepIs(t *testing.T) {
	for name, slow := range slowSteps {
		for what, which := range slowCases {
			t.Run(what+", "+name, func(t *testing.T) {
				t.Parallel()
				srv := startServer(t)
				way := startWay(t, srv.addr)
				store := srv.shared()
				store.Timeout = Duration(100 * time.Millisecond)
				two := startNode(t, "", t.TempDir(), store, nil, nil)
				store.Addresses = []string{way.addr}
				one := startNode(t, "", t.TempDir(), store, nil, nil)
				one.synced()
				two.synced()
				maybe := func(isSlow bool) func(step func()) {
					if isSlow {
						return func(step func()) { slow(srv, way, step) }
					}
					return func(step func()) { step() }
				}
				failed := func() uint64 { return one.g.Status().Store.Shared.Timeouts }
				for turn := range 10 {
					if which.all && turn > 0 {
						break
					}
					addr := fmt.Sprintf("192.0.%d.1", turn)
					one.back()
					before := failed()
					for i := range 10 {
						now := i == turn || which.all && i%3 != 0
						if i%3 == 0 && !now {
							two.guess(addr, i, maybe(false), maybe(false))
						} else {
							one.guess(addr, i, maybe(now && which.reserve), maybe(now && which.settle))
						}
					}
					if failed() == before {
						t.Errorf("no step of guess %d was slow", turn)
					}
					for _, n := range []*node{one, two} {
						n.comesTo(addr, protocol.Banned)
						if got := n.guesses(addr, "another", 1); got != 0 {
							t.Errorf("a guess from %s reached a server after ten failures", addr)
						}
					}
				}
			})
		}
	}
}

// So it is if some masters of a Cluster have taken a step and one has not.
func TestTenFailuresBanThoughAMasterOfAClusterIsSlow(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	store := servers[0].shared()
	store.Cluster = true
	store.Timeout = Duration(200 * time.Millisecond)
	store.Addresses = []string{servers[0].addr, servers[1].addr, servers[2].addr}
	nodes := fleetOf(t, 2, store, nil)
	one, two := nodes[0], nodes[1]
	for i := range 12 {
		addr, login := fmt.Sprintf("192.0.%d.1", i), fmt.Sprint("user", i)
		one.back()
		one.guesses(addr, login, 5)
		two.guesses(addr, "other"+login, 4)
		a, v := one.ask(from(addr), plain(login, "the tenth"))
		if a == nil {
			t.Fatalf("the tenth guess from %s: %v", addr, v)
		}
		slow := servers[i%len(servers)]
		slow.signal(syscall.SIGSTOP)
		one.g.Settle(a, protocol.Failure, "535 5.7.8")
		slow.signal(syscall.SIGCONT)
		for _, n := range nodes {
			n.comesTo(addr, protocol.Banned)
		}
	}
}
