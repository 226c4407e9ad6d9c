package main

import (
	"encoding/binary"
	"net/netip"
)

// The bans of the row are mixed as those of a server are that also has a list of
// networks: of twenty 14 are IPv4 addresses, 4 IPv6 addresses (a /64 each), and 2
// networks. Each width of network is one more search for every client.

// A share is one of the twenty.
type share int

const (
	share24 share = 18 // an IPv4 /24, or every other time a /20
	share48 share = 19 // an IPv6 /48
	share64 share = 14 // from here on IPv6
	shares        = 20
)

func isNetwork(n int) bool { return share(n%shares) >= share24 }

// bannedPrefix is the n-th entry of the list, none of which is there twice.
func bannedPrefix(n int) netip.Prefix {
	bits := 32
	switch which := share(n % shares); {
	case which == share48:
		bits = 48
	case which == share24:
		bits = 24 - 4*(n/shares%2)
	case which >= share64:
		bits = 64
	}
	p, _ := clientOf(n).Prefix(bits)
	return p
}

// clientOf is a client in the n-th entry: all over the address space, none twice,
// and no two in one network of the list (2654435761 is odd, so that it permutes
// the numbers below any power of two).
func clientOf(n int) netip.Addr {
	spread := uint32(n) * 2654435761
	which := share(n % shares)
	if which == share24 {
		spread = uint32(n/shares)*2654435761<<12 | 0x7
	}
	if which < share64 || which == share24 {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], spread)
		return netip.AddrFrom4(a)
	}
	a := [16]byte{0x20, 0x01, 15: 1}
	binary.BigEndian.PutUint32(a[2:], spread)
	return netip.AddrFrom16(a)
}
