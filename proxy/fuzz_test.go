package proxy

import (
	"bytes"
	"net"
	"testing"
	"testing/iotest"

	"github.com/pires/go-proxyproto"
)

// FuzzHeader feeds the reader of inbound PROXY headers anything. It takes no
// byte beyond the header, whatever borders the bytes come in, reads a bounded
// amount, and names a client only where the library reads the same.
func FuzzHeader(f *testing.F) {
	addr := func(s string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(s), Port: 4711} }
	for _, version := range []byte{1, 2} {
		for _, pair := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
			b, err := proxyproto.HeaderProxyFromAddrs(version, addr(pair[0]), addr(pair[1])).Format()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
			f.Add(append(b, "EHLO x\r\n"...))
			f.Add(b[:len(b)-1])
		}
	}
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		r := bytes.NewReader(sent)
		raw, err := collectHeader(r)
		taken := len(sent) - r.Len()
		if taken > maxHeaderRead {
			t.Fatalf("%d bytes read", taken)
		}
		again, errAgain := collectHeader(iotest.OneByteReader(bytes.NewReader(sent)))
		if (err == nil) != (errAgain == nil) || !bytes.Equal(raw, again) && err == nil {
			t.Fatalf("%q, %v in one piece; %q, %v byte by byte", raw, err, again, errAgain)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(raw, sent[:taken]) {
			t.Fatalf("the header is %q, %d bytes were taken", raw, taken)
		}
		got, err := parseHeader(raw)
		if err != nil {
			return
		}
		if !got.client.IsValid() || got.client.Addr().Is4In6() || got.client.Addr().Zone() != "" {
			t.Errorf("%q names the client %v", raw, got.client)
		}
	})
}
