package guard

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailreeve/protocol"
)

// A liar stands between a node and its store. It passes everything, but for a
// lie that it is told to tell in place of the store's next answer.
type liar struct {
	addr string
	lie  atomic.Pointer[string]
	told atomic.Int64
}

func newLiar(t *testing.T, store string) *liar {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	liar := &liar{addr: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go liar.stand(c, store)
		}
	}()
	return liar
}

func (l *liar) stand(node net.Conn, store string) {
	defer node.Close()
	server, err := net.Dial("tcp", store)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, node)
		server.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		answer := buf[:n]
		lie := l.lie.Swap(nil)
		if lie != nil {
			answer = []byte(*lie)
			l.told.Add(1)
		}
		if _, err := node.Write(answer); err != nil {
			return
		}
	}
}

// Whatever a store answers, or whatever else is behind its address, a node goes
// on: it takes the store to be away, and works with it again once it makes sense.
func TestALyingStoreStopsNobody(t *testing.T) {
	srv := startServer(t)
	liar := newLiar(t, srv.addr)
	store := srv.shared()
	store.Addresses = []string{liar.addr}
	one := fleetOf(t, 1, store, nil)[0]
	one.guesses("192.0.2.3", "carol", 10)
	for name, lie := range map[string]string{
		"a string of a negative length":   "$-7\r\n",
		"a string of no length":           "$\r\n",
		"a string of 2^63-1 bytes":        "$9223372036854775807\r\n",
		"a string of 100 GB":              "$99999999999\r\n",
		"a string in chunks":              "$?\r\n;99999999999\r\n",
		"a list of a negative length":     "*-5\r\n",
		"a list of 2^62 elements":         "*4611686018427387904\r\n",
		"a list of 2^31-1 elements":       "*2147483647\r\n",
		"a map of more than there are":    "%4611686018427387905\r\n",
		"lists in lists":                  strings.Repeat("*1\r\n", 4<<20),
		"lists of many lists":             strings.Repeat("*900000\r\n", 10_000),
		"a line without an end":           "+" + strings.Repeat("x", 8<<20),
		"answers that nobody asked for":   strings.Repeat("+OK\r\n", 1000),
		"a subscription nobody asked for": ">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n",
		"a line that ends otherwise":      "#t\n#t\r\n",
		"another protocol":                "220 mx.example.test ESMTP\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			before := liar.told.Load()
			liar.lie.Store(&lie)
			eventually(t, 20*time.Second, "the lie is told", func() bool { return liar.told.Load() > before })
			one.admits(from("192.0.2.3"), protocol.Banned)
			one.back()
		})
	}
}

// Where messages end does not depend on how they come.
func TestAnswersAreFollowed(t *testing.T) {
	for _, tt := range []struct {
		text   string
		ended  int64
		wanted error
	}{
		{"+OK\r\n-ERR no\r\n:-42\r\n_\r\n#t\r\n,1.5\r\n", 6, nil},
		{"$2\r\n\r\n\r\n$0\r\n\r\n$-1\r\n", 3, nil},
		{"*0\r\n*-1\r\n*2\r\n*1\r\n:1\r\n%1\r\n+a\r\n~1\r\n$1\r\nx\r\n+next\r\n", 4, nil},
		{"*2\r\n+half\r\n", 0, nil},
		{">2\r\n+message\r\n+x\r\n+OK\r\n", 1, nil},
		{"+OK\n", 0, errAnswer},
		{"*1\r\n>1\r\n+x\r\n", 0, errAnswer},
		{"+OK\r\n|1\r\n+a\r\n+b\r\n", 1, errAnswer},
		// What is too much is so before it comes.
		{strings.Repeat("*1\r\n", maxNested) + "+x\r\n", 1, nil},
		{strings.Repeat("*1\r\n", maxNested+1), 0, errAnswer},
		{fmt.Sprintf("$%d\r\n", maxAnswer), 0, errAnswer},
		{fmt.Sprintf("*%d\r\n", maxElements+1), 0, errAnswer},
		{fmt.Sprintf("%%%d\r\n", maxElements/2+1), 0, errAnswer},
		{fmt.Sprintf("*%d\r\n*2\r\n", maxElements-1), 0, errAnswer},
		{"+" + strings.Repeat("x", maxAnswerLine), 0, errAnswer},
	} {
		for _, step := range []int{1, 2, len(tt.text)} {
			w := respWatch{unasked: true}
			var ended int64
			var err error
			for part := range slices.Chunk([]byte(tt.text), step) {
				n, bad := w.watch(part)
				ended += n
				if err = bad; err != nil {
					break
				}
			}
			if ended != tt.ended || err != tt.wanted {
				t.Errorf("%q by %d: %d messages and %v, want %d and %v", tt.text, step, ended, err, tt.ended, tt.wanted)
			}
		}
	}
}
