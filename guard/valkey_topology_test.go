package guard

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"

	"mailreeve/protocol"
)

// startCluster starts a Cluster of three masters.
func startCluster(t *testing.T) []*server {
	t.Helper()
	var out []*server
	for range 3 {
		out = append(out, startServer(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"))
	}
	share := 16384 / len(out)
	for i, s := range out {
		c := s.client(t)
		from, to := i*share, (i+1)*share-1
		if i == len(out)-1 {
			to = 16383
		}
		redisCLI(t, c, "CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(from), fmt.Sprint(to))
		redisCLI(t, c, "CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+1))
		if i > 0 {
			redisCLI(t, c, "CLUSTER", "MEET", "127.0.0.1", out[0].port())
		}
	}
	for _, s := range out {
		c := s.client(t)
		eventually(t, 20*time.Second, "the Cluster is ready", func() bool {
			info, _ := redisCLI(t, c, "CLUSTER", "INFO").ToString()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return out
}

func TestACluster(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	store := servers[0].shared()
	store.Cluster = true
	store.Addresses = []string{servers[0].addr, servers[1].addr, servers[2].addr}
	nodes := fleetOf(t, 3, store, nil)
	one, two := nodes[0], nodes[1]
	var reached atomic.Int64
	var wg sync.WaitGroup
	answer := make(chan struct{})
	for i := range 100 {
		wg.Go(func() {
			a, _ := nodes[i%3].g.Attempt(context.Background(), from("192.0.2.1"), plain(fmt.Sprint("user", i%5), fmt.Sprint("guess", i)))
			if a != nil {
				reached.Add(1)
				<-answer
				nodes[i%3].g.Settle(a, protocol.Failure, "535 5.7.8")
			}
		})
	}
	eventually(t, 10*time.Second, "ten guesses are with the servers", func() bool { return reached.Load() >= 10 })
	close(answer)
	wg.Wait()
	if n := reached.Load(); n != 10 {
		t.Errorf("the servers saw %d guesses, want 10", n)
	}
	for _, n := range nodes {
		n.comesTo("192.0.2.1", protocol.Banned)
	}
	used := 0
	for _, s := range servers {
		if n, _ := redisCLI(t, s.client(t), "DBSIZE").AsInt64(); n > 0 {
			used++
		}
	}
	if used != 3 {
		t.Errorf("%d of 3 masters hold keys", used)
	}
	// One master stops: everybody goes on alone, and nothing is lost.
	servers[1].signal(syscall.SIGSTOP)
	one.away()
	one.earnsABan("192.0.2.5", "frank")
	one.admits(from("192.0.2.5"), protocol.Banned)
	servers[1].signal(syscall.SIGCONT)
	one.back()
	two.comesTo("192.0.2.5", protocol.Banned)
}

func TestASentinelFailover(t *testing.T) {
	t.Parallel()
	master := startServer(t)
	replica := startServer(t, "--replicaof", "127.0.0.1 "+master.port())
	sentinel := startSentinel(t, master)
	eventually(t, 20*time.Second, "the replica is in step", func() bool {
		info, _ := redisCLI(t, replica.client(t), "INFO", "replication").ToString()
		return strings.Contains(info, "master_link_status:up")
	})
	eventually(t, 20*time.Second, "the Sentinel knows the replica", func() bool {
		r, _ := redisCLI(t, sentinel, "SENTINEL", "REPLICAS", "mail").ToArray()
		return len(r) == 1
	})
	store := master.shared()
	store.Addresses = []string{sentinelAddr(sentinel)}
	store.SentinelMaster = "mail"
	nodes := fleetOf(t, 2, store, nil)
	one, two := nodes[0], nodes[1]
	one.earnsABan("192.0.2.3", "carol")
	two.comesTo("192.0.2.3", protocol.Banned)
	one.guesses("192.0.2.1", "alice", 4)

	master.kill()
	one.guesses("192.0.2.1", "dave", 3)
	one.earnsABan("192.0.2.5", "frank")
	one.away()
	one.back() // with the replica, now a master
	two.back()
	c := replica.client(t)
	for _, addr := range []string{"192.0.2.3", "192.0.2.5"} {
		two.comesTo(addr, protocol.Banned)
		eventually(t, 10*time.Second, addr+" is blocked in the new master", func() bool {
			n, _ := redisCLI(t, c, "EXISTS", "mailreeve:blocked-ip."+addr).AsInt64()
			return n == 1
		})
	}
	eventually(t, 10*time.Second, "7 points in the new master", func() bool { return two.points("192.0.2.1") == 7 })
}

// startSentinel starts a Sentinel that watches a master alone, and gives a
// client of it.
func startSentinel(t *testing.T, master *server) valkey.Client {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor mail 127.0.0.1 %s 1\nsentinel down-after-milliseconds mail 500\n"+
		"sentinel failover-timeout mail 3000\n", master.port())
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, addr: freeAddr(t), dir: dir, conf: conf}
	s.start()
	t.Cleanup(s.kill)
	return s.client(t)
}

func sentinelAddr(c valkey.Client) string {
	for addr := range c.Nodes() {
		return addr
	}
	return ""
}

// leastACL is what docs/fleet.md gives the user.
func leastACL(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../docs/fleet.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rule, ok := strings.CutPrefix(line, "user mailreeve "); ok {
			return strings.Fields(rule)
		}
	}
	t.Fatal("docs/fleet.md has no line that begins with \"user mailreeve\"")
	return nil
}

// leastUser makes the user that docs/fleet.md describes, with the password
// "secret", and gives the file that the password is in.
func leastUser(t *testing.T, servers ...*server) (passwordFile string) {
	t.Helper()
	acl := leastACL(t)
	for i, word := range acl {
		if strings.HasPrefix(word, ">") {
			acl[i] = ">secret"
		}
	}
	for _, s := range servers {
		redisCLI(t, s.client(t), append([]string{"ACL", "SETUSER", "mailreeve"}, acl...)...)
	}
	passwordFile = filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(passwordFile, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return passwordFile
}

// allOfIt has two nodes do all that they ever ask of a store, and looks at what
// the user was refused.
func allOfIt(t *testing.T, nodes []*node, servers ...*server) {
	t.Helper()
	nodes[0].guesses("192.0.2.1", "alice", 10)
	nodes[1].comesTo("192.0.2.1", protocol.Banned)
	for i := range 20 {
		nodes[0].guesses(fmt.Sprintf("192.0.%d.77", i), "owner", 1)
	}
	nodes[0].guesses("203.0.113.1", "owner", 1) // asks for a ticket
	nodes[0].logsIn("198.51.100.7", "someone")
	nodes[0].g.flush()
	eventually(t, 10*time.Second, "the place is familiar at the other node", func() bool { return len(nodes[1].g.places.of("someone")) == 1 })
	if _, err := nodes[1].g.Allow(AllowRequest{Target: "203.0.113.0/24", For: Forever}); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes[1].g.Unban(UnbanRequest{Target: "all"}); err != nil {
		t.Fatal(err)
	}
	nodes[0].comesTo("192.0.2.1", protocol.Pass)
	nodes[0].g.fleet.follower.applied.Store(0)
	nodes[0].g.fleet.readAgain()
	eventually(t, 10*time.Second, "all is read again", func() bool { return nodes[0].g.fleet.follower.applied.Load() > 0 })
	for _, n := range nodes {
		if s := n.g.Status().Store.Shared; s.Outages != 0 || s.Timeouts != 0 || s.Ignored != 0 {
			t.Errorf("status %+v; said %s", s, n.said.text.String())
		}
	}
	for _, s := range servers {
		log, _ := redisCLI(t, s.client(t), "ACL", "LOG").ToArray()
		for i := range log {
			m, _ := log[i].AsStrMap()
			t.Errorf("the user was refused %s", m["object"])
		}
	}
}

func TestTLSAndTheLeastThatTheUserMayDo(t *testing.T) {
	t.Parallel()
	cert, keyFile := selfSigned(t, t.TempDir())
	srv := startServer(t, "--tls-port", "0")
	tlsAddr := freeAddr(t)
	_, port, _ := net.SplitHostPort(tlsAddr)
	redisCLI(t, srv.client(t), "CONFIG", "SET", "tls-cert-file", cert, "tls-key-file", keyFile, "tls-ca-cert-file", cert,
		"tls-auth-clients", "no", "tls-port", port)
	store := srv.shared()
	store.Addresses = []string{tlsAddr}
	store.TLS, store.TLSCA, store.TLSServerName = true, cert, "store.example.test"
	store.Username, store.PasswordFile = "mailreeve", leastUser(t, srv)
	allOfIt(t, fleetOf(t, 2, store, nil), srv)
}

func TestTheLeastThatTheUserMayDoInACluster(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	store := servers[0].shared()
	store.Cluster = true
	store.Addresses = []string{servers[0].addr, servers[1].addr, servers[2].addr}
	store.Username, store.PasswordFile = "mailreeve", leastUser(t, servers...)
	allOfIt(t, fleetOf(t, 2, store, nil), servers...)
}

// selfSigned makes a certificate for store.example.test.
func selfSigned(t *testing.T, dir string) (cert, keyFile string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "store.example.test"}, DNSNames: []string{"store.example.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, keyFile
}
