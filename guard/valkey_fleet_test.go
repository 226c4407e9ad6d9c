package guard

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailreeve/protocol"

	"github.com/valkey-io/valkey-go"
)

// A saidLog keeps what is logged, for tests of what operators are told.
type saidLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *saidLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *saidLog) times(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// A node is one proxy's guard in a fleet.
type node struct {
	*story
	dir  string
	said *saidLog
	cfg  Config
	opt  Options
}

// fleetOf makes n guards on one store.
func fleetOf(t *testing.T, n int, store SharedStoreConfig, edit func(*Config)) []*node {
	t.Helper()
	key := filepath.Join(t.TempDir(), "guess.key")
	if err := os.WriteFile(key, []byte(storyKey), 0o600); err != nil {
		t.Fatal(err)
	}
	var out []*node
	for range n {
		out = append(out, startNode(t, key, t.TempDir(), store, edit, nil))
	}
	for _, o := range out {
		o.synced()
	}
	return out
}

func startNode(t *testing.T, key, dir string, store SharedStoreConfig, edit func(*Config), now func() time.Time) *node {
	t.Helper()
	cfg := DefaultConfig()
	cfg.ExemptLocal = false
	if edit != nil {
		edit(&cfg)
	}
	said := &saidLog{}
	opt := Options{
		Store: StoreConfig{Kind: "valkey", Path: dir, GuessKey: key, SharedStoreConfig: store},
		Log:   slog.New(slog.NewTextHandler(said, nil)), Now: now,
	}
	if err := opt.Store.Validate(); err != nil {
		t.Fatal(err)
	}
	nd := &node{story: &story{T: t, g: open(t, cfg, opt)}, dir: dir, said: said, cfg: cfg, opt: opt}
	t.Cleanup(func() {
		nd.stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", nd.g.fleet.share.node, said.text.String())
		}
	})
	return nd
}

// stop ends a node; a second call does nothing.
func (n *node) stop() {
	if err := n.g.Close(); err != nil && !strings.Contains(err.Error(), "unwritten") {
		n.Error(err)
	}
}

func (n *node) synced() {
	n.Helper()
	select {
	case <-n.g.fleet.synced:
	case <-time.After(10 * time.Second):
		n.Fatal("the store's bans were not read within 10 s")
	}
}

// shared is the configuration for one server.
func (s *server) shared() SharedStoreConfig {
	c := defaultSharedStoreConfig()
	c.Addresses = []string{s.addr}
	// The race detector and two cores for all servers and nodes: what is
	// tested here is not how fast the store is.
	c.Timeout = Duration(time.Second)
	return c
}

// nodeClient gives a client with the settings that a node's has.
func nodeClient(t *testing.T, shared SharedStoreConfig) valkey.Client {
	t.Helper()
	options, err := shared.options()
	if err != nil {
		t.Fatal(err)
	}
	c, err := valkey.NewClient(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// earnsABan sends ten guesses, or fewer where many others came from the network,
// and waits until the address is banned here.
func (n *node) earnsABan(addr, login string) {
	n.Helper()
	reached := n.guesses(addr, login, 10)
	if n.g.Admit(from(addr)) != protocol.Banned {
		w, _ := n.g.Why(addr)
		n.Logf("%s is not banned at once: %d guesses reached the server, scores %+v, store %+v",
			addr, reached, w.Scores, n.g.Status().Store.Shared)
	}
	n.comesTo(addr, protocol.Banned)
}

// comesTo waits until an address is, or is no longer, kept out at a node.
func (n *node) comesTo(addr string, want protocol.Verdict) {
	n.Helper()
	eventually(n.T, 10*time.Second, fmt.Sprintf("%s is %v", addr, want), func() bool { return n.g.Admit(from(addr)) == want })
}

func TestAFleetCountsAsOne(t *testing.T) {
	nodes := fleetOf(t, 3, startServer(t).shared(), nil)
	for i := range 9 {
		a, v := nodes[i%3].ask(from("192.0.2.1"), plain("alice", fmt.Sprint("wrong", i)))
		if v != protocol.Pass {
			t.Fatalf("guess %d: %v", i, v)
		}
		nodes[i%3].g.Settle(a, protocol.Failure, "535 5.7.8")
	}
	for _, n := range nodes {
		n.admits(from("192.0.2.1"), protocol.Pass)
	}
	// The same guess again counts once, wherever it comes.
	if _, v := nodes[1].ask(from("192.0.2.1"), plain("alice", "wrong0")); v != protocol.Pass {
		t.Errorf("the same guess at another node: %v, want it to go", v)
	} else if w, _ := nodes[2].g.Why("192.0.2.1"); len(w.Scores) == 0 || w.Scores[0].Points != 9 {
		t.Errorf("scores %+v, want 9 points", w.Scores)
	}
	a, v := nodes[2].ask(from("192.0.2.1"), plain("bob", "tenth"))
	if v != protocol.Pass {
		t.Fatalf("the tenth guess: %v", v)
	}
	if d := nodes[2].g.Settle(a, protocol.Failure, "535 5.7.8"); d.Verdict != protocol.Banned {
		t.Errorf("the tenth failure: %+v, want a ban", d)
	}
	for _, n := range nodes {
		n.comesTo("192.0.2.1", protocol.Banned)
	}
	bans := nodes[0].g.Bans(BanFilter{Evidence: true})
	if len(bans) != 1 || bans[0].Score != 10 || len(bans[0].Events) != 10 {
		t.Fatalf("another node's list: %+v, want one ban with ten events", bans)
	}
	if _, err := nodes[0].g.Unban(UnbanRequest{Target: "192.0.2.1"}); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		n.comesTo("192.0.2.1", protocol.Pass)
	}
	if a, v := nodes[1].ask(from("192.0.2.1"), plain("carol", "after")); a == nil {
		t.Errorf("after the unban: %v", v)
	}
}

// What the limit allows is all that the servers see, though 200 connections
// try at once through three proxies and the servers take their time.
func TestNoOvershootOverThreeNodes(t *testing.T) {
	nodes := fleetOf(t, 3, startServer(t).shared(), nil)
	var reached, flying atomic.Int64
	var wg sync.WaitGroup
	answer := make(chan struct{})
	for i := range 200 {
		wg.Go(func() {
			n := nodes[i%3]
			a, _ := n.g.Attempt(context.Background(), from("192.0.2.1"), plain(fmt.Sprint("user", i%5), fmt.Sprint("guess", i)))
			if a == nil {
				return
			}
			flying.Add(1)
			reached.Add(1)
			<-answer
			n.g.Settle(a, protocol.Failure, "535 5.7.8")
		})
	}
	eventually(t, 10*time.Second, "ten guesses are with the servers", func() bool { return flying.Load() >= 10 })
	close(answer)
	wg.Wait()
	if n := reached.Load(); n != 10 {
		t.Errorf("the servers saw %d guesses, want 10", n)
	}
	for _, n := range nodes {
		n.comesTo("192.0.2.1", protocol.Banned)
	}
}

func TestWhatOneNodeLearnsAllKnow(t *testing.T) {
	nodes := fleetOf(t, 2, startServer(t).shared(), nil)
	one, two := nodes[0], nodes[1]
	one.logsIn("198.51.100.7", "owner@example.test")
	one.g.flush()
	eventually(t, 5*time.Second, "the place is familiar at the other node", func() bool { return len(two.g.places.of("owner@example.test")) == 1 })
	if _, err := one.g.Allow(AllowRequest{Target: "203.0.113.0/24", For: Duration(time.Hour), Reason: "office"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the allow entry is there", func() bool { return len(two.g.Allowed()) == 1 })
	if _, err := two.g.Disallow("203.0.113.0/24"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the allow entry is gone", func() bool { return len(one.g.Allowed()) == 0 })
	for _, k := range []struct {
		ban  BanRequest
		addr string
	}{
		{BanRequest{Target: "192.0.2.9", Reason: "by hand"}, "192.0.2.9"},
		{BanRequest{Target: "2001:db8:7::/48", For: Forever}, "2001:db8:7::1"},
	} {
		if _, err := one.g.AddBan(k.ban); err != nil {
			t.Fatal(err)
		}
		two.comesTo(k.addr, protocol.Banned)
		if _, err := two.g.Unban(UnbanRequest{Target: k.ban.Target}); err != nil {
			t.Fatal(err)
		}
		one.comesTo(k.addr, protocol.Pass)
	}
	for i := range 20 {
		one.guesses(fmt.Sprintf("192.0.%d.77", i), "owner@example.test", 1)
	}
	eventually(t, 5*time.Second, "the login is guarded at the other node", func() bool { return len(two.g.Logins()) == 1 })
}

func TestKeysAreForPeopleToRead(t *testing.T) {
	s := startServer(t)
	nodes := fleetOf(t, 1, s.shared(), nil)
	c := s.client(t)
	nodes[0].guesses("192.0.2.1", "alice", 10)
	fields, err := redisCLI(t, c, "HGETALL", "mailreeve:blocked-ip.192.0.2.1").AsStrMap()
	if err != nil || !strings.Contains(fields["auth"], `"rule":"authentication"`) {
		t.Errorf("mailreeve:blocked-ip.192.0.2.1 is %v, %v", fields, err)
	}
	ttl, _ := redisCLI(t, c, "PTTL", "mailreeve:blocked-ip.192.0.2.1").AsInt64()
	if left := time.Duration(ttl) * time.Millisecond; left > time.Hour+time.Second || left < 59*time.Minute {
		t.Errorf("it ends in %v, want an hour", left)
	}
	keys, _ := redisCLI(t, c, "KEYS", "*").AsStrSlice()
	for _, k := range keys {
		if !strings.HasPrefix(k, "mailreeve:") {
			t.Errorf("key %q is outside the prefix", k)
		}
		if ttl, _ := redisCLI(t, c, "PTTL", k).AsInt64(); ttl == -1 && !strings.Contains(k, "index.") && k != "mailreeve:changes" {
			t.Errorf("key %q never ends", k)
		}
	}
	if _, err := nodes[0].g.Unban(UnbanRequest{Target: "192.0.2.1"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the key is gone", func() bool {
		n, _ := redisCLI(t, c, "EXISTS", "mailreeve:blocked-ip.192.0.2.1").AsInt64()
		return n == 0
	})
}

// Those who follow a node's events hear of the others' bans, marked as such; of
// those from before its start they do not.
func TestOtherNodesBansAreEvents(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	one := startNode(t, "", t.TempDir(), srv.shared(), nil, nil)
	one.synced()
	one.earnsABan("192.0.2.1", "alice")
	two := startNode(t, one.opt.Store.GuessKey, t.TempDir(), srv.shared(), nil, nil)
	var mu sync.Mutex
	var heard []string
	stop := two.g.Follow(func(n *News) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, fmt.Sprintf("%s %s %s %v", n.Kind, n.Ban.Target, n.Ban.Rule, n.Elsewhere))
	})
	defer stop()
	two.synced()
	two.comesTo("192.0.2.1", protocol.Banned)
	one.earnsABan("192.0.2.2", "bob")
	two.comesTo("192.0.2.2", protocol.Banned)
	if _, err := one.g.Unban(UnbanRequest{Target: "192.0.2.2"}); err != nil {
		t.Fatal(err)
	}
	want := "[ban 192.0.2.2 authentication true unban 192.0.2.2 authentication true]"
	eventually(t, 5*time.Second, "the events are "+want, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return fmt.Sprint(heard) == want
	})
}

// A node that starts reads no evidence; it fetches that when somebody asks.
func TestANewNodeExplainsBansFromBeforeItsStart(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	one := startNode(t, "", t.TempDir(), srv.shared(), nil, nil)
	one.synced()
	one.earnsABan("192.0.2.1", "alice")
	for i := range 20 {
		one.guesses(fmt.Sprintf("192.0.%d.77", i+10), "owner@example.test", 1)
	}
	two := startNode(t, one.opt.Store.GuessKey, t.TempDir(), srv.shared(), nil, nil)
	two.synced()
	for target, want := range map[string]int{"192.0.2.1": 10, "owner@example.test": 20} {
		w, err := two.g.Why(target)
		if err != nil || len(w.Bans) != 1 || len(w.Bans[0].Events) != want {
			t.Errorf("why %s: %+v, %v; want one ban with %d events", target, w.Bans, err, want)
		}
	}
	if b := two.g.Bans(BanFilter{Evidence: true, Kind: "any"}); len(b) != 2 || len(b[0].Events)+len(b[1].Events) != 30 {
		t.Errorf("bans with evidence: %+v, want 30 events of two", b)
	}
	srv.kill()
	two.away()
	if w, err := two.g.Why("192.0.2.1"); err != nil || len(w.Bans) != 1 {
		t.Errorf("why while the store is away: %+v, %v", w.Bans, err)
	}
}

// What a node has read of the store it still has when it starts without it.
func TestANodeStartsWithWhatItReadOfTheStore(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	one := startNode(t, "", t.TempDir(), srv.shared(), nil, nil)
	one.synced()
	one.earnsABan("192.0.2.1", "alice")
	if _, err := one.g.AddBan(BanRequest{Target: "192.0.2.9", Reason: "by hand"}); err != nil {
		t.Fatal(err)
	}
	two := startNode(t, one.opt.Store.GuessKey, t.TempDir(), srv.shared(), nil, nil)
	two.synced()
	two.comesTo("192.0.2.1", protocol.Banned)
	v := two.g.fleet.share.versions
	id := versionID(v, sentenceKey{kind: banned, scope: "auth", key: key{kind: byAddress, prefix: mustAddr("192.0.2.1")}})
	eventually(t, 10*time.Second, "the ban is kept", func() bool {
		e, known := v.get(id)
		return known && !e.unkept
	})
	two.stop()
	srv.kill()
	again := startNode(t, one.opt.Store.GuessKey, two.dir, srv.shared(), nil, nil)
	again.admits(from("192.0.2.1"), protocol.Banned)
	if b := again.g.Bans(BanFilter{Rule: manualRule}); len(b) != 1 || b[0].Reason != "by hand" {
		t.Errorf("the ban by hand is %+v, want its reason", b)
	}
}
