package proxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"unsafe"
)

// Giving crypto/tls's read buffers back while a connection is parked.
//
// A tls.Conn keeps the buffer that it read records into, 32 KiB after a client
// sent large ones, and the one of its handshake messages, as long as it lives
// (golang/go issue 81348). Of a parked connection they would be by far the
// largest part. They are private fields; so where they lie is found by
// reflection at start, and nothing is done unless name, type and Go version
// are those that this file was written for.
//
// What it gains: a parked IMAPS connection that had sent a 100 KiB message
// holds 32 KiB less. What it gives up: an allocation or two when the
// connection wakes, and the duty to read crypto/tls/conn.go with each new Go.
//
// Why it is safe: the buffers are given back only by the goroutine that reads,
// with the connection's own read lock in hand, and only if all three are empty.
// An empty bytes.Buffer behaves as a new one, and crypto/tls starts each
// connection with new ones.

// testedGo is the Go version whose crypto/tls was read and tested for this.
const testedGo = "go1.26"

// tlsBuffers knows where a tls.Conn has its read buffers.
type tlsBuffers struct {
	known    bool
	readLock uintptr // sync.Mutex of the reading half
	rawInput uintptr // bytes.Buffer of records
	input    uintptr // bytes.Reader of what is decrypted, within rawInput
	hand     uintptr // bytes.Buffer of handshake messages
}

// findTLSBuffers looks where they are. With an error nothing will be given
// back.
func findTLSBuffers() (tlsBuffers, error) {
	if v := runtime.Version(); v != testedGo && !strings.HasPrefix(v, testedGo+".") {
		return tlsBuffers{}, fmt.Errorf("built with %s, tested with %s", v, testedGo)
	}
	var b tlsBuffers
	conn := reflect.TypeFor[tls.Conn]()
	half, ok := conn.FieldByName("in")
	if !ok || half.Type.Kind() != reflect.Struct {
		return tlsBuffers{}, fmt.Errorf("crypto/tls.Conn has no reading half")
	}
	for _, f := range []struct {
		in     reflect.Type
		name   string
		want   reflect.Type
		offset *uintptr
	}{
		{half.Type, "Mutex", reflect.TypeFor[sync.Mutex](), &b.readLock},
		{conn, "rawInput", reflect.TypeFor[bytes.Buffer](), &b.rawInput},
		{conn, "input", reflect.TypeFor[bytes.Reader](), &b.input},
		{conn, "hand", reflect.TypeFor[bytes.Buffer](), &b.hand},
	} {
		field, ok := f.in.FieldByName(f.name)
		if !ok || field.Type != f.want {
			return tlsBuffers{}, fmt.Errorf("crypto/tls: %s.%s is no %s", f.in, f.name, f.want)
		}
		*f.offset = field.Offset
	}
	b.readLock += half.Offset
	b.known = true
	return b, nil
}

// release gives a connection's read buffers back if they are empty and nobody
// is reading. The caller is the one who reads, after its handshake.
func (b *tlsBuffers) release(c *tls.Conn) {
	if !b.known || c == nil {
		return
	}
	lock := (*sync.Mutex)(unsafe.Add(unsafe.Pointer(c), b.readLock))
	if !lock.TryLock() {
		return
	}
	defer lock.Unlock()
	rawInput, input, hand := b.of(c)
	if rawInput.Len() > 0 || input.Len() > 0 || hand.Len() > 0 {
		return
	}
	*rawInput = bytes.Buffer{}
	*hand = bytes.Buffer{}
	input.Reset(nil) // it may point into what rawInput had
}

// of gives a connection's read buffers.
func (b *tlsBuffers) of(c *tls.Conn) (rawInput *bytes.Buffer, input *bytes.Reader, hand *bytes.Buffer) {
	at := func(offset uintptr) unsafe.Pointer { return unsafe.Add(unsafe.Pointer(c), offset) }
	return (*bytes.Buffer)(at(b.rawInput)), (*bytes.Reader)(at(b.input)), (*bytes.Buffer)(at(b.hand))
}
