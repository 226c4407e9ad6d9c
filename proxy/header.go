package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// maxHeaderSent is what a v2 header of ours may measure: Exim and Cyrus read
// no more than 16 + 216 bytes.
const maxHeaderSent = 232

// maxHeaderRead bounds a header that we read; the specification's own figure
// is 536.
const maxHeaderRead = 2048

// facts are what a PROXY header tells about a client.
type facts struct {
	client netip.AddrPort
	local  netip.AddrPort // where the client connected to
	tls    *tls.ConnectionState
	id     string // for the server's log and ours
}

// header composes the header that goes to the server ahead of everything, in
// one write. With ProxyNone and ProxyXClient it is empty.
func (f *facts) header(kind ProxyProtocol) ([]byte, error) {
	h := proxyproto.Header{
		Command:         proxyproto.PROXY,
		SourceAddr:      net.TCPAddrFromAddrPort(f.client),
		DestinationAddr: net.TCPAddrFromAddrPort(f.local),
	}
	h.TransportProtocol = proxyproto.TCPv6
	if f.client.Addr().Is4() && f.local.Addr().Is4() {
		h.TransportProtocol = proxyproto.TCPv4
	}
	switch kind {
	case ProxyNone, ProxyXClient:
		return nil, nil
	case ProxyV1:
		h.Version = 1
		return h.Format()
	}
	h.Version = 2
	return f.formatV2(&h)
}

// formatV2 leaves out what the server can best do without until the header
// is short enough.
func (f *facts) formatV2(h *proxyproto.Header) ([]byte, error) {
	for _, leave := range []struct{ authority, id, cipher bool }{
		{}, {authority: true}, {authority: true, id: true}, {authority: true, id: true, cipher: true},
	} {
		var tlvs []proxyproto.TLV
		if f.tls != nil {
			ssl, err := f.sslTLV(!leave.cipher)
			if err != nil {
				return nil, err
			}
			tlvs = append(tlvs, ssl)
			if name := f.tls.ServerName; !leave.authority && isHostname(name) {
				tlvs = append(tlvs, proxyproto.TLV{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte(name)})
			}
		}
		if f.id != "" && !leave.id {
			tlvs = append(tlvs, proxyproto.TLV{Type: proxyproto.PP2_TYPE_UNIQUE_ID, Value: []byte(f.id)})
		}
		if err := h.SetTLVs(tlvs); err != nil {
			return nil, err
		}
		b, err := h.Format()
		if err != nil || len(b) <= maxHeaderSent {
			return b, err
		}
	}
	return nil, errors.New("PROXY header does not fit 232 bytes")
}

// sslTLV tells the server that the client's connection is encrypted, which is
// what lets Dovecot take a password. Names are OpenSSL's, as HAProxy sends
// them. verify is not zero: no client certificate was verified.
func (f *facts) sslTLV(cipher bool) (proxyproto.TLV, error) {
	version := strings.Replace(tls.VersionName(f.tls.Version), "TLS ", "TLSv", 1)
	sub := []proxyproto.TLV{{Type: proxyproto.PP2_SUBTYPE_SSL_VERSION, Value: []byte(version)}}
	if cipher {
		sub = append(sub, proxyproto.TLV{
			Type: proxyproto.PP2_SUBTYPE_SSL_CIPHER, Value: []byte(opensslCipher(f.tls.CipherSuite))})
	}
	return tlvparse.PP2SSL{Client: tlvparse.PP2_BITFIELD_CLIENT_SSL, Verify: 1, TLV: sub}.Marshal()
}

// opensslCipher gives a suite's name as OpenSSL writes it. TLS 1.3's names are
// the same everywhere; package tls would make a list of all suites, a kilobyte,
// to find one.
func opensslCipher(id uint16) string {
	switch id {
	case tls.TLS_AES_128_GCM_SHA256:
		return "TLS_AES_128_GCM_SHA256"
	case tls.TLS_AES_256_GCM_SHA384:
		return "TLS_AES_256_GCM_SHA384"
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		return "TLS_CHACHA20_POLY1305_SHA256"
	}
	name := tls.CipherSuiteName(id)
	name, ok := strings.CutPrefix(name, "TLS_ECDHE_")
	if !ok {
		return name
	}
	name = strings.NewReplacer("_WITH_", "-", "AES_128", "AES128", "AES_256", "AES256",
		"CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305", "_", "-").Replace(name)
	return "ECDHE-" + strings.ReplaceAll(name, "-CBC-", "-")
}

// isHostname tells whether s may stand in an AUTHORITY: Dovecot 2.4 drops the
// connection over anything that is not a DNS name.
func isHostname(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
				return false
			}
		}
	}
	return true
}

var v2Signature = []byte("\r\n\r\n\x00\r\nQUIT\n")

// errLocal is a LOCAL header: the peer's own connection, a health check.
var errLocal = errors.New("LOCAL header")

// readHeader reads the header that a trusted peer must send, to its last byte
// and no further, before the deadline. It gives errLocal for a connection that
// the peer made for itself.
func readHeader(tcp *quickConn, deadline time.Time) (facts, error) {
	if err := tcp.SetReadDeadline(deadline); err != nil {
		return facts{}, err
	}
	raw, err := collectHeader(tcp)
	if err != nil {
		return facts{}, err
	}
	if err := tcp.SetReadDeadline(time.Time{}); err != nil {
		return facts{}, err
	}
	return parseHeader(raw)
}

// parseHeader reads a header that is complete.
func parseHeader(raw []byte) (facts, error) {
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(raw), maxHeaderRead))
	if err != nil {
		return facts{}, err
	}
	if h.Command.IsLocal() || h.TransportProtocol == proxyproto.UNSPEC {
		return facts{}, errLocal
	}
	source, destination, ok := h.TCPAddrs()
	if !ok {
		return facts{}, errors.New("header is not about a TCP connection")
	}
	return facts{client: unmapped(source.AddrPort()), local: unmapped(destination.AddrPort())}, nil
}

// collectHeader reads exactly the bytes of a header. A v1 line is read byte by
// byte, since what follows it belongs to TLS or to the client's dialogue.
func collectHeader(r io.Reader) ([]byte, error) {
	b := make([]byte, 16, maxHeaderRead)
	if _, err := io.ReadFull(r, b[:12]); err != nil {
		return nil, err
	}
	if bytes.Equal(b[:12], v2Signature) {
		if _, err := io.ReadFull(r, b[12:16]); err != nil {
			return nil, err
		}
		size := 16 + int(b[14])<<8 + int(b[15])
		if size > maxHeaderRead {
			return nil, fmt.Errorf("PROXY header of %d bytes is too long", size)
		}
		b = b[:size]
		_, err := io.ReadFull(r, b[16:])
		return b, err
	}
	if !bytes.HasPrefix(b[:12], []byte("PROXY ")) {
		return nil, errors.New("no PROXY header")
	}
	const maxV1 = 107
	for n := 12; n < maxV1; n++ {
		b = b[:n+1]
		if _, err := io.ReadFull(r, b[n:]); err != nil {
			return nil, err
		}
		if b[n] == '\n' {
			return b, nil
		}
	}
	return nil, errors.New("PROXY v1 header without a line end")
}

// unmapped gives the address as the guard knows it: v4-mapped is v4, and there
// are no zones.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
