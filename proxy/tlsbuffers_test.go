package proxy

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A new Go must be looked at before its buffers are touched: read in
// crypto/tls/conn.go what becomes of rawInput, input and hand, then raise
// testedGo.
func TestTLSBuffersAreKnown(t *testing.T) {
	if _, err := findTLSBuffers(); err != nil {
		t.Fatalf("%v: compare crypto/tls/conn.go with tlsbuffers.go, then raise testedGo", err)
	}
}

// Whatever the sizes of records, wherever a read stops, and whatever else TLS
// says in between, giving buffers back changes no byte of what is read.
func TestTLSBuffersMayGoAtAnyPoint(t *testing.T) {
	buffers, err := findTLSBuffers()
	if err != nil {
		t.Skip(err)
	}
	cert := selfSigned(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), rapid.MakeCheck(func(t *rapid.T) {
			p := newTLSPair(t, cert, version)
			up := &flow{from: p.client, to: p.server, at: p.serverEnd}
			down := &flow{from: p.server, to: p.client, at: p.clientEnd}
			// A hand-made client can say what crypto/tls never would.
			var hand *handmade
			if version == tls.VersionTLS13 && rapid.Bool().Draw(t, "hand-made records") {
				hand = newHandmade(t, p)
			}
			for range rapid.IntRange(1, 30).Draw(t, "steps") {
				f := rapid.SampledFrom([]*flow{up, down}).Draw(t, "flow")
				switch {
				case rapid.Bool().Draw(t, "read"):
					f.read(t, &buffers, rapid.IntRange(1, 10).Draw(t, "reads"))
				case f == up && hand != nil:
					hand.say(t, p.clientEnd.out, up, &buffers)
				default:
					f.write(t)
				}
			}
			for _, f := range []*flow{up, down} {
				f.at.stutter = false
				f.drain(t, &buffers)
			}
		}))
	}
}

// A flow is one direction of a connection.
type flow struct {
	from, to *tls.Conn
	at       *wireEnd // that to reads from
	sent     []byte   // and not read yet
	next     byte
}

// payload gives bytes in an order that shows any that is lost or swapped.
func (f *flow) payload(t *rapid.T) []byte {
	most := rapid.SampledFrom([]int{1, 100, 5000, 40_000, 200_000}).Draw(t, "at most")
	b := make([]byte, rapid.IntRange(1, most).Draw(t, "size"))
	for i := range b {
		b[i] = f.next
		f.next = f.next*5 + 113 // a full cycle
	}
	f.sent = append(f.sent, b...)
	return b
}

func (f *flow) write(t *rapid.T) {
	if _, err := f.from.Write(f.payload(t)); err != nil {
		t.Fatal(err)
	}
}

// read reads n times, and gives the buffers back where a pump would park, and
// sometimes where it would not.
func (f *flow) read(t *rapid.T, buffers *tlsBuffers, n int) {
	f.at.draw = t
	for range n {
		b := make([]byte, rapid.SampledFrom([]int{1, 7, 4 << 10, 64 << 10}).Draw(t, "buffer"))
		if !f.readOnce(t, b) || rapid.Bool().Draw(t, "rashly") {
			buffers.release(f.to)
		}
	}
}

// readOnce reads and compares. It returns false on a timeout.
func (f *flow) readOnce(t *rapid.T, b []byte) bool {
	n, err := f.to.Read(b)
	if err != nil && !isTimeout(err) {
		t.Fatal(err)
	}
	if n > len(f.sent) || !bytes.Equal(b[:n], f.sent[:n]) {
		t.Fatalf("read %d bytes that were not sent, of %d outstanding", n, len(f.sent))
	}
	f.sent = f.sent[n:]
	return err == nil
}

// drain reads to the end, and looks whether the buffers go then.
func (f *flow) drain(t *rapid.T, buffers *tlsBuffers) {
	b := make([]byte, 64<<10)
	for f.readOnce(t, b) {
	}
	if len(f.sent) > 0 {
		t.Fatalf("%d bytes are lost", len(f.sent))
	}
	buffers.release(f.to)
	rawInput, input, hand := buffers.of(f.to)
	if rawInput.Cap() > 0 || input.Size() > 0 || hand.Cap() > 0 {
		t.Fatalf("an idle connection keeps %d, %d and %d bytes", rawInput.Cap(), input.Size(), hand.Cap())
	}
}

// Nobody's buffers are taken while he reads.
func TestTLSBuffersStayWithAReader(t *testing.T) {
	buffers, err := findTLSBuffers()
	if err != nil {
		t.Skip(err)
	}
	cert := selfSigned(t)
	rapid.Check(t, func(t *rapid.T) {
		p := newTLSPair(t, cert, tls.VersionTLS13)
		rawInput, _, _ := buffers.of(p.server)
		rawInput.Grow(100)
		p.serverEnd.reading = func() { buffers.release(p.server) }
		if _, err := p.server.Read(make([]byte, 1)); !isTimeout(err) {
			t.Fatal(err)
		}
		if rawInput.Cap() == 0 {
			t.Error("the buffer is gone in the middle of a read")
		}
	})
}

// A wire is one direction of a connection in memory.
type wire struct {
	mu       sync.Mutex
	came     sync.Cond
	b        bytes.Buffer
	blocking bool // a reader waits; else it gets a timeout
}

func newWire() *wire {
	w := &wire{blocking: true}
	w.came.L = &w.mu
	return w
}

// A wireEnd is one end of two wires.
type wireEnd struct {
	net.Conn // nil: what is not here must not be called

	in, out *wire
	stutter bool     // reads give a part, or a timeout though there is more
	draw    *rapid.T // decides how much
	reading func()   // is called in every read
}

func (e *wireEnd) Read(p []byte) (int, error) {
	if e.reading != nil {
		e.reading()
	}
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	for e.in.blocking && e.in.b.Len() == 0 {
		e.in.came.Wait()
	}
	n := min(len(p), e.in.b.Len())
	if n > 0 && e.stutter {
		n = min(n, rapid.SampledFrom([]int{0, 1, 5, 600, 20_000}).Draw(e.draw, "arrives"))
	}
	if n == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	return e.in.b.Read(p[:n])
}

func (e *wireEnd) Write(p []byte) (int, error) {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	e.out.came.Broadcast()
	return e.out.b.Write(p)
}

func (e *wireEnd) SetWriteDeadline(time.Time) error { return nil }

// A tlsPair is a client and a server that have shaken hands.
type tlsPair struct {
	client, server       *tls.Conn
	clientEnd, serverEnd *wireEnd
	keys                 strings.Builder // lines of an SSLKEYLOGFILE
}

func newTLSPair(t *rapid.T, cert tls.Certificate, version uint16) *tlsPair {
	up, down := newWire(), newWire()
	p := &tlsPair{clientEnd: &wireEnd{in: down, out: up}, serverEnd: &wireEnd{in: up, out: down}}
	large := rapid.Bool().Draw(t, "large records")
	p.server = tls.Server(p.serverEnd, &tls.Config{Certificates: []tls.Certificate{cert},
		MaxVersion: version, DynamicRecordSizingDisabled: large})
	p.client = tls.Client(p.clientEnd, &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example.test", MaxVersion: version,
		// The cache has the client take the tickets that come later on.
		ClientSessionCache: tls.NewLRUClientSessionCache(1), KeyLogWriter: &p.keys,
		DynamicRecordSizingDisabled: large})
	done := make(chan error, 1)
	go func() { done <- p.server.Handshake() }()
	if err := p.client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	up.blocking, down.blocking = false, false
	p.clientEnd.stutter, p.serverEnd.stutter = true, true
	p.clientEnd.draw, p.serverEnd.draw = t, t
	return p
}

// A handmade client writes TLS 1.3 records in place of a tls.Conn, to send key
// updates, padding and empty records (RFC 8446 sections 5.2 and 7).
type handmade struct {
	secret []byte
	seq    uint64
}

func newHandmade(t *rapid.T, p *tlsPair) *handmade {
	if p.client.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("another cipher suite was chosen")
	}
	for line := range strings.Lines(p.keys.String()) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			return &handmade{secret: secret}
		}
	}
	t.Fatal("the client's secret was not logged")
	return nil
}

const typeHandshake, typeData = 22, 23

// say sends a few records: data, some of it after a key update.
func (h *handmade) say(t *rapid.T, w *wire, f *flow, buffers *tlsBuffers) {
	padding := rapid.IntRange(0, 300)
	if rapid.Bool().Draw(t, "empty record") {
		w.b.Write(h.record(t, typeData, nil, padding.Draw(t, "padding")))
	}
	if rapid.Bool().Draw(t, "key update") {
		update := []byte{24, 0, 0, 1, byte(rapid.IntRange(0, 1).Draw(t, "both keys"))}
		cut := rapid.IntRange(1, len(update)).Draw(t, "cut") // a message may come in pieces
		w.b.Write(h.record(t, typeHandshake, update[:cut], padding.Draw(t, "padding")))
		if rapid.Bool().Draw(t, "pause") {
			f.read(t, buffers, 3)
		}
		if cut < len(update) {
			w.b.Write(h.record(t, typeHandshake, update[cut:], 0))
		}
		h.secret, h.seq = h.expand(t, "traffic upd", sha256.Size), 0
	}
	for b := f.payload(t); len(b) > 0; {
		n := min(len(b), rapid.SampledFrom([]int{1, 50, 4000, 16_000}).Draw(t, "record"))
		w.b.Write(h.record(t, typeData, b[:n], padding.Draw(t, "padding")))
		b = b[n:]
	}
}

// record protects one record.
func (h *handmade) record(t *rapid.T, kind byte, content []byte, padding int) []byte {
	block, err := aes.NewCipher(h.expand(t, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := h.expand(t, "iv", 12)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^h.seq)
	h.seq++
	inner := append(append(bytes.Clone(content), kind), make([]byte, padding)...)
	header := []byte{typeData, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(header[3:], uint16(len(inner)+aead.Overhead()))
	return aead.Seal(header, nonce, inner, header)
}

// expand is HKDF-Expand-Label without a context.
func (h *handmade) expand(t *rapid.T, label string, n int) []byte {
	label = "tls13 " + label
	info := append([]byte{byte(n >> 8), byte(n), byte(len(label))}, label...)
	key, err := hkdf.Expand(sha256.New, h.secret, string(append(info, 0)), n)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
