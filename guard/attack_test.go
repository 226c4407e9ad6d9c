package guard

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"testing"
	"time"

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

// Where the server takes alice+anything for alice, one account has as many names
// as its owner likes. They must not make us forget where other people live.
func TestTheManyNamesOfOneAccountEvictEachOther(t *testing.T) {
	p := newPlaces(100)
	at := func(i int) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 1}), 32) }
	for i := range 60 {
		p.add(fmt.Sprint("user", i), at(i), int64(i))
	}
	hers := netip.MustParsePrefix("192.0.2.1/32")
	for i := range 2000 {
		login := fmt.Sprint("alice+", i)
		p.add(login, hers, int64(1000+i))
		if p.familiarity(login, hers, int64(1000+i), time.Hour) != familiarAddress {
			t.Fatalf("%s is forgotten at once", login)
		}
	}
	for i := range 60 {
		if login := fmt.Sprint("user", i); p.familiarity(login, at(i), 3000, time.Hour) != familiarAddress {
			t.Errorf("%s is forgotten", login)
		}
	}
	names := 0
	for _, crowd := range p.crowds {
		names += len(crowd)
	}
	if len(p.logins) != 100 || names != 100 || len(p.crowds) != 61 {
		t.Errorf("%d logins, %d in %d networks; want 100 of both, in 61", len(p.logins), names, len(p.crowds))
	}
}

// What a damaged store gives twice is one login: the other would be evicted in
// vain for ever.
func TestALoginReadTwiceIsOneOfItsNetwork(t *testing.T) {
	p := newPlaces(100)
	at := netip.MustParsePrefix("192.0.2.1/32")
	for range 2 {
		for i := range 100 {
			p.load(fmt.Sprint("user", i), []place{{at, int64(i)}}, 1000)
		}
	}
	for i := range 1000 {
		p.add(fmt.Sprint("new", i), at, int64(2000+i))
	}
	if n := len(p.crowds[network(at.Addr())]); len(p.logins) != 100 || n != 100 {
		t.Errorf("%d logins, %d in their network; want 100 of both", len(p.logins), n)
	}
}

// A network that has used half of its limit is taken for one attacker: what is
// left of it may try half as often from one address. Who is at home there, and
// who is elsewhere, has what he had.
func TestACrowdedNetworkHalvesItsAddressesLimits(t *testing.T) {
	tell(t, func(c *Config) { c.Login = Limit{1000, Duration(time.Hour)} }, func(s *story) {
		s.logsIn("198.51.100.7", "alice")
		for i := range 25 {
			s.wrong(fmt.Sprintf("198.51.100.%d", 100+i), "bob", fmt.Sprint("crowd", i))
		}
		if n := s.guesses("198.51.100.200", "bob", 20); n != 5 {
			s.Errorf("%d guesses from an address of the crowded network, want half of ten", n)
		}
		bans := s.g.Bans(BanFilter{Evidence: true})
		if len(bans) != 1 || bans[0].Score != 5 || bans[0].Limit != "5/1h" || bans[0].Reason == "" || len(bans[0].Events) != 5 {
			s.Errorf("bans %+v, want one that says why five were enough", bans)
		}
		if n := s.guesses("203.0.113.1", "bob", 20); n != 10 {
			s.Errorf("%d guesses from elsewhere, want ten", n)
		}
		for i := range 9 {
			s.want(s.wrong("198.51.100.7", "alice", fmt.Sprint("forgotten", i)), protocol.Pass)
		}
	})
}

// A network that has used a guarded login's ticket in vain gets none for a day,
// whatever happens to us meanwhile.
func TestARestartGivesNobodyAnotherTicket(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	clock := func() time.Time { return now }
	s := onDisk(t, dir, clock)
	// tickets counts how often a network is let through in ten minutes.
	tickets := func(addr string) (n int) {
		for i := range 120 {
			now = now.Add(5 * time.Second)
			if a, _ := s.ask(from(addr), plain("alice", fmt.Sprint(addr, i, now))); a != nil {
				s.g.Settle(a, protocol.Failure, "")
				n++
			}
		}
		return n
	}
	for i := range 20 {
		s.wrong(fmt.Sprintf("203.0.%d.1", i), "alice", fmt.Sprint(i))
	}
	if n := tickets("198.51.100.9"); n != 1 {
		t.Fatalf("%d tickets for a network before the restart, want one", n)
	}
	s.g.flush()
	s.written()
	s = onDisk(t, s.crash(dir), clock)
	defer s.g.Close()
	if n := tickets("198.51.100.9"); n != 0 {
		t.Errorf("%d more tickets after the restart, want none within a day", n)
	}
	if n := tickets("192.0.2.9"); n != 1 {
		t.Errorf("%d tickets for another network, want one", n)
	}
}
