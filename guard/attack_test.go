package guard

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"testing"

	"mailreeve/protocol"
)

// What somebody would try who has read this code.

// Some servers take no notice of the authorisation identity. Who has one
// account of his own there could name anybody.
func TestNobodyBecomesFamiliarToAnAccountThatHeOnlyNames(t *testing.T) {
	tell(t, nil, func(s *story) {
		both := &protocol.Credential{Mechanism: "PLAIN", Identities: []string{"mallory", "alice"}, Secret: []byte("mallorys own")}
		a, _ := s.ask(from("198.51.100.9"), both)
		if a == nil {
			s.Fatal("the credential did not reach the server")
		}
		s.g.Settle(a, protocol.Success, "")
		if places := s.g.places.of("alice"); len(places) != 0 {
			s.Errorf("alice has never logged in and is at home at %v", places)
		}
		if places := s.g.places.of("mallory"); len(places) != 1 {
			s.Errorf("mallory is at home at %v, want one place", places)
		}
		for i := range 30 {
			s.wrong(fmt.Sprintf("203.0.%d.1", i), "alice", fmt.Sprint(i))
		}
		s.want(s.wrong("198.51.100.9", "alice", "guess"), protocol.Guarded)
	})
}

// Where a server takes alice+anything as alice, names can be found that have
// one checksum. They count as many all the same.
func TestRecipientsWithOneChecksumAreMany(t *testing.T) {
	byChecksum := make(map[uint32]string)
	var first, second string
	for i := 0; first == ""; i++ {
		name := fmt.Sprintf("alice+%d@example.test", i)
		h := fnv.New32a()
		h.Write([]byte{0, 0, 0, 0})
		h.Write([]byte(name))
		if have, ok := byChecksum[h.Sum32()]; ok {
			first, second = have, name
		}
		byChecksum[h.Sum32()] = name
	}
	tell(t, nil, func(s *story) {
		for _, r := range []string{first, second, second} {
			s.g.Report(mx("192.0.2.1"), "", protocol.Event{Kind: protocol.InvalidRcpt, Recipient: r})
		}
		why, err := s.g.Why("192.0.2.1")
		if err != nil || len(why.Scores) != 1 || why.Scores[0].Points != 2 {
			s.Errorf("%q and %q: %+v %v, want 2 points", first, second, why.Scores, err)
		}
	})
}

// An allow entry for a part of a network is no licence for the rest of it.
func TestANetworkIsExemptOnlyAsAWhole(t *testing.T) {
	tell(t, func(c *Config) { c.AllowedIP = []string{"203.0.113.0/28"} }, func(s *story) {
		reached := 0
		for i := range 200 {
			a, _ := s.ask(from(fmt.Sprintf("203.0.113.%d", 16+i)), plain(fmt.Sprint("user", i), fmt.Sprint(i)))
			if a != nil {
				reached++
				s.g.Settle(a, protocol.Failure, "")
			}
		}
		if reached != 50 {
			s.Errorf("%d guesses of one network reached the server, want its limit of 50", reached)
		}
		s.logsIn("203.0.113.3", "alice")
	})
}

// One account and a large IPv6 network must not fill the memory.
func TestKnownAddressesAreBounded(t *testing.T) {
	m := make(map[netip.Prefix]int64)
	for i := range 1000 {
		a := netip.AddrFrom16([16]byte{0x20, 1, byte(i >> 8), byte(i)})
		rememberKnown(m, netip.PrefixFrom(a, 64), int64(i), 100)
		if _, ok := m[netip.PrefixFrom(a, 64)]; !ok {
			t.Fatalf("%v is forgotten at once", a)
		}
	}
	if len(m) != 100 {
		t.Errorf("%d addresses are known, want 100", len(m))
	}
}
