package guard

import (
	"net/netip"
	"sync"
)

// lost notices that the clients' addresses are being lost before us: almost
// all offences come from one private address, or from a PROXY peer. To ban
// that address would be to ban everybody.
type lost struct {
	mu      sync.Mutex
	since   int64
	all     int
	by      map[netip.Addr]int
	said    netip.Addr
	current netip.Addr
}

// maxLostSources bounds the private addresses that are told apart.
const maxLostSources = 1000

// offended notes something that scored, or would have. It says so once per
// address when almost all come from there.
func (l *lost) offended(g *Guard, o *Origin, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil || now-l.since > lostWindow.Milliseconds() {
		l.since, l.all, l.by = now, 0, make(map[netip.Addr]int)
		l.current = netip.Addr{}
	}
	l.all++
	if l.current.IsValid() && float64(l.by[l.current]) < lostSourceShare*float64(l.all) {
		l.current = netip.Addr{}
	}
	trusted := g.trusted(o.Addr)
	if !o.Addr.IsPrivate() && !o.Addr.IsLoopback() && !o.Addr.IsLinkLocalUnicast() && !trusted {
		return
	}
	if _, known := l.by[o.Addr]; !known && len(l.by) >= maxLostSources {
		return
	}
	l.by[o.Addr]++
	if l.all < lostSourceMin || float64(l.by[o.Addr]) < lostSourceShare*float64(l.all) {
		return
	}
	l.current = o.Addr
	if l.said != o.Addr {
		l.said = o.Addr
		g.log.Warn("almost all wrong passwords and other offences come from one address that is no client's: the clients' addresses "+
			"are lost before they get here, and a ban would shut everybody out; "+lostCause(o.Addr, trusted)+
			"; if it is a client all the same (webmail), put it into allowed-ip",
			"client", o.Addr, "offences", l.by[o.Addr], "of", l.all)
	}
}

// lostCause is the likely reason, and what to do.
func lostCause(a netip.Addr, trusted bool) string {
	switch {
	case trusted:
		return "it is one of trusted-proxies, and names itself as the client: whatever stands before it must send it the PROXY protocol too"
	case isDocker(a):
		return "it looks like a container network's gateway: publish the ports with host networking, or switch Docker's userland-proxy off"
	case a.IsLoopback():
		return "a program on this machine passes connections on (a tunnel, stunnel, another proxy): have it send the PROXY protocol and name it in trusted-proxies"
	}
	return "it looks like a proxy, a load balancer or a router that rewrites sources: have it send the PROXY protocol and name it in trusted-proxies"
}

// isDocker tells whether an address is where Docker's bridges are unless
// configured otherwise, in 172.16.0.0/12.
func isDocker(a netip.Addr) bool {
	return a.Is4() && a.As4()[0] == 172 && a.As4()[1]&0xf0 == 16
}

func (l *lost) source() netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}
