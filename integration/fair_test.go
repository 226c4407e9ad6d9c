package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/pires/go-proxyproto"

	"mailreeve/integration/testbed"
)

// defaults are the built-in rules as they are by default.
func defaults(more map[string]any) map[string]any {
	rules := map[string]any{
		"authentication": "10/1h", "authentication-slow": "30/7d", "login": "20/1h", "spray": "6/1h", "network": "50/1h",
	}
	for key, value := range more {
		rules[key] = value
	}
	return rules
}

// Forty people work behind one address. One of their phones has an old password
// and tries it five hundred times. Everybody gets in all day, nobody is banned,
// and the server is asked about the old password once.
func TestAStalePhoneCostsItsOfficeNothing(t *testing.T) {
	t.Parallel()
	const office, people, retries = "127.50.0.1", 40, 500
	p := bed.NewProxy(t, bed.Standard(defaults(map[string]any{"repeat-answer": "30m"})))
	stale := p.Guess("imaps", office, bed.Users[0].Login, bed.Secrets.New("stale"))
	var phone, desks tally
	for i := range retries {
		phone.try(stale)
		if i%(retries/people) == 0 && i/(retries/people) < people {
			user := bed.Users[i/(retries/people)]
			desks.try(p.Guess([]string{"imaps", "submissions"}[i%2], office, user.Login, user.Password))
		}
	}
	if n := desks.count[testbed.Accepted]; n != people {
		t.Errorf("%d of %d got in: %v", n, people, &desks)
	}
	if n := phone.count[testbed.Wrong]; n != retries {
		t.Errorf("the phone was told that its password is wrong %d times, want %d: %v", n, retries, &phone)
	}
	if bans := p.Admin("bans", "--kind", "any"); bans != "no bans\n" {
		t.Errorf("bans:\n%s", bans)
	}
	if n := bed.Dovecot.FlushedLog(t).Count(failedLogin(office)); n != 1 {
		t.Errorf("Dovecot was asked %d times", n)
	}
}

// Who has an account of their own cannot clear their guesses at another's with
// it. The ban is soft: their own account still works from there.
func TestOnesOwnAccountDoesNotClearTheScore(t *testing.T) {
	t.Parallel()
	const limit, from = 10, "127.52.0.1"
	p := bed.NewProxy(t, bed.Standard(map[string]any{"authentication": fmt.Sprintf("%d/1h", limit)}))
	own, victim := bed.Users[41], bed.Users[42]
	var answers tally
	for i := range 2 * limit {
		if i%4 == 0 {
			mustLogin(t, p.Guess("imaps", from, own.Login, own.Password)).Close()
		}
		answers.try(p.Guess("submissions", from, victim.Login, bed.Secrets.New(fmt.Sprintf("between%d", i))))
	}
	mustBan(t, p, from)
	if n := bed.Dovecot.FlushedLog(t).Count(failedLogin(from)); n != limit {
		t.Errorf("the server saw %d guesses, want %d: %v", n, limit, &answers)
	}
}

// A header may name an IPv4 client as IPv6 does (::ffff:192.0.2.1): that is the
// same client. And a thousand addresses of one /64 are one client too.
func TestOneClientInManySpellings(t *testing.T) {
	t.Parallel()
	const limit = 4
	p := behindBalancer(t, map[string]any{"authentication": fmt.Sprintf("%d/1h", limit)})
	user := bed.Users[43]
	guess := func(client string, i int) {
		t.Helper()
		conn := sendHeaderOf(t, netip.MustParseAddr(client), p.Port("imaps"))
		// Late guesses are cut; how many came through is what counts.
		loginThrough(conn, user, bed.Secrets.New(fmt.Sprintf("spelling-%s-%d", client, i)))
	}
	for i := range limit / 2 {
		guess("198.51.100.60", i)
		guess("::ffff:198.51.100.60", limit+i)
	}
	mustBan(t, p, "198.51.100.60")
	for _, client := range []string{"198.51.100.60", "::ffff:198.51.100.60"} {
		if said, err := sendHeaderOf(t, netip.MustParseAddr(client), p.Port("imaps")).Rest(); err != nil || said != "" {
			t.Errorf("%s is banned and hears %q, %v", client, said, err)
		}
	}

	for i := range limit {
		guess(fmt.Sprintf("2001:db8:1:2:%x::1", i+1), i)
	}
	mustBan(t, p, "2001:db8:1:2::/64")
	for i := range 1000 {
		client := netip.MustParseAddr(fmt.Sprintf("2001:db8:1:2:ffff::%x", i))
		if said, err := sendHeaderOf(t, client, p.Port("imaps")).Rest(); err != nil || said != "" {
			t.Fatalf("%s is banned and hears %q, %v", client, said, err)
		}
	}
	answer, err := loginThrough(sendHeaderOf(t, netip.MustParseAddr("2001:db8:1:3::1"), p.Port("imaps")), user, user.Password)
	if answer != testbed.Accepted {
		t.Errorf("the next /64: %v, %v", answer, err)
	}
}

// sendHeaderOf is sendHeader for the balancer's clients of either family. A
// v4-mapped address goes as IPv6.
func sendHeaderOf(t *testing.T, client netip.Addr, port int) *testbed.Conn {
	t.Helper()
	conn, err := testbed.Dial(balancer, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	header := &proxyproto.Header{
		Version: 2, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4,
		SourceAddr:      &net.TCPAddr{IP: client.AsSlice(), Port: 4711},
		DestinationAddr: &net.TCPAddr{IP: net.ParseIP("192.0.2.25"), Port: 993},
	}
	if client.Is6() {
		header.TransportProtocol = proxyproto.TCPv6
		header.DestinationAddr = &net.TCPAddr{IP: net.ParseIP("2001:db8::25"), Port: 993}
	}
	if _, err := header.WriteTo(conn); err != nil {
		t.Fatal(err)
	}
	return conn
}

// Knocking while banned changes nothing: not the score, not the end.
func TestKnockingWhileBannedChangesNothing(t *testing.T) {
	t.Parallel()
	const limit, from = 3, "127.54.0.1"
	p := bed.NewProxy(t, bed.Standard(map[string]any{
		"authentication": fmt.Sprintf("%d/1h", limit), "loitering": "50/1d", "abuse": "30/1d",
	}))
	for i := range limit {
		p.Guess("imaps", from, bed.Users[44].Login, bed.Secrets.New(fmt.Sprintf("knock%d", i))).Answer()
	}
	mustBan(t, p, from)
	before := p.Admin("why", from, "--json")
	for range 50 {
		for _, listener := range []string{"imaps", "submissions", "imap"} {
			if !dropped(t, from, p.Port(listener)) {
				t.Fatalf("%s let a banned address in", listener)
			}
		}
	}
	if after := p.Admin("why", from, "--json"); after != before {
		t.Errorf("before the knocking %s\nafter %s", before, after)
	}
	var why struct {
		Bans []struct {
			Score  float64
			Events []struct{ Points float64 }
		}
	}
	if err := json.Unmarshal([]byte(before), &why); err != nil {
		t.Fatal(err)
	}
	for _, b := range why.Bans {
		sum := 0.0
		for _, e := range b.Events {
			sum += e.Points
		}
		if sum != b.Score || sum != limit {
			t.Errorf("the events add up to %v, the score is %v, the limit %d", sum, b.Score, limit)
		}
	}
}
