package main

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailreeve/guard"
	"mailreeve/proxy"
)

func (in *invocation) showStatus(s statusAnswer) {
	in.printf("%s, pid %d, up %s\n", s.Version, s.PID, short(time.Since(s.Started)))
	in.printf("config     %s, loaded %s\n", s.Config, when(s.Loaded))
	if s.Ready {
		in.printf("ready      yes\n")
	} else {
		in.printf("ready      NO: %s\n", s.NotReady)
	}
	in.printf("open       %s, %d logged in\n", count(s.Proxy.Connections, "connection", "connections"), s.Proxy.Authenticated)
	in.showGuard(s.Guard)
	in.showFilter(s.Proxy.KernelFilter)
	in.printf("\n")
	rows := [][]string{{"LISTENER", "ADDRESS", "PROTOCOL", "SCOPE", "OPEN", "DROPPED SYNS"}}
	for _, l := range s.Proxy.Listeners {
		rows = append(rows, []string{l.Name, l.Address, l.Protocol, l.Scope,
			strconv.Itoa(l.Connections), strconv.FormatUint(l.DroppedSYNs, 10)})
	}
	in.table(rows)
	in.printf("\n")
	in.showProbes(s.Proxy.Upstreams)
}

func (in *invocation) showGuard(g guard.Status) {
	in.printf("bans       %d in force%s, %d since the start\n", g.Bans, byRule(g.ByRule), g.BansTotal)
	if g.DryRun {
		in.printf("           DRY RUN: nobody is refused\n")
	}
	if g.Simulated > 0 {
		in.printf("           %d more in dry run\n", g.Simulated)
	}
	if g.FalseBans > 0 {
		in.printf("           %d (%.1f %%) probably hit someone with a right password\n", g.FalseBans, 100*g.FalseBanRate)
	}
	in.printf("guarded    %s\n", count(g.Guarded, "login", "logins"))
	in.printf("tracked    %d addresses, %d networks, %d logins, %d evicted\n", g.Addresses, g.Networks, g.Logins, g.Evictions)
	if g.Waiting > 0 {
		in.printf("waiting    %s for others' results\n", count(g.Waiting, "login attempt", "login attempts"))
	}
	if len(g.Suspended) > 0 {
		in.printf("suspended  %s: in trouble, so its failures ban nobody for now\n", strings.Join(g.Suspended, ", "))
	}
	if g.LostSource.IsValid() {
		in.printf("WARNING    almost all failures come from %s: is something before us hiding the clients' addresses?\n"+
			"           (a load balancer needs the PROXY protocol and trusted-proxies, Docker its userland proxy off)\n", g.LostSource)
	}
	store := "healthy"
	if !g.Store.Healthy {
		store = "IN TROUBLE: " + g.Store.Error + " (bans are enforced from memory)"
	}
	in.printf("store      %s %s, %d records, %s\n", g.Store.Kind, g.Store.Path, g.Store.Records, store)
	if s := g.Store.Shared; s != nil && s.Connected {
		in.printf("fleet      connected as %s\n", s.Node)
	} else if s != nil {
		in.printf("fleet      AWAY since %s: %s (this node goes on alone; %s and %s to be told)\n", s.AwaySince.Format(time.RFC3339), s.Error,
			count(s.Buffered, "count", "counts"), count(s.Pending, "change", "changes"))
	}
	if g.Store.Recovered != "" {
		in.printf("           %s\n", g.Store.Recovered)
	}
}

func (in *invocation) showFilter(f proxy.KernelFilterStatus) {
	switch {
	case f.State == "on":
		in.printf("kernel     drops the banned before accept, %s\n", count(f.Entries, "entry", "entries"))
	case f.Reason != "":
		in.printf("kernel     filter %s: %s\n", f.State, f.Reason)
	default:
		in.printf("kernel     filter %s\n", f.State)
	}
}

func byRule(rules map[string]int) string {
	if len(rules) == 0 {
		return ""
	}
	var s []string
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		s = append(s, plain(name)+" "+strconv.Itoa(rules[name]))
	}
	return " (" + strings.Join(s, ", ") + ")"
}

// showProbes lists what looking at the servers behind has found.
func (in *invocation) showProbes(probes []proxy.ProbeResult) {
	rows := [][]string{{"UPSTREAM", "ADDRESS", "PROTOCOL", "STATE", "NAME", "MAKE"}}
	for _, p := range probes {
		state := "ok"
		if !p.OK {
			state = "DOWN"
		}
		rows = append(rows, []string{p.Upstream, p.Address, p.Protocol, state, plainOrEmpty(p.Host), plainOrEmpty(p.Family)})
	}
	in.table(rows)
	for _, p := range probes {
		if p.Error != "" {
			in.printf("%s at %s: %s\n", p.Upstream, p.Address, p.Error)
		}
	}
}
