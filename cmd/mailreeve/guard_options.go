package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"mailreeve/guard"
)

// guardOptions gathers what the guard must know of the rest of the
// configuration and of the machine.
func guardOptions(ctx context.Context, c *Config) (guard.Options, error) {
	aliases, err := readAliases(c.Guard.AliasFile)
	if err != nil {
		return guard.Options{}, &guard.KeyError{Key: "alias-file", Err: err}
	}
	opt := guard.Options{Aliases: aliases, Local: localPrefixes(ctx, c)}
	for _, l := range c.Listeners {
		for _, s := range l.TrustedProxies {
			if p, err := guard.ParsePrefix(s); err == nil {
				opt.Trusted = append(opt.Trusted, p)
			}
		}
	}
	return opt, nil
}

// localPrefixes are this machine's addresses and the upstreams'. A name of an
// upstream that does not resolve now is left out: it only matters for mail
// servers that connect to us.
func localPrefixes(ctx context.Context, c *Config) []netip.Prefix {
	var local []netip.Prefix
	add := func(a netip.Addr) {
		a = a.Unmap().WithZone("")
		local = append(local, netip.PrefixFrom(a, a.BitLen()))
	}
	ours, _ := net.InterfaceAddrs() // Without them loopback still is local.
	for _, a := range ours {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			add(p.Addr())
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookupWithin)
	defer cancel()
	for _, u := range c.Upstreams {
		for _, address := range u.Addresses {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				continue
			}
			addrs, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
			for _, a := range addrs {
				add(a)
			}
		}
	}
	return local
}

// maxAliasLine bounds a line of the alias file, in bytes.
const maxAliasLine = 4 << 10

// readAliases reads the alias file: "alias login" a line, # begins a comment.
// Like virtual_alias_maps, minus what points to several.
func readAliases(file string) (map[string]string, error) {
	if file == "" {
		return nil, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	aliases := map[string]string{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxAliasLine)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		switch fields := strings.Fields(text); len(fields) {
		case 0:
		case 2:
			aliases[fields[0]] = fields[1]
		default:
			return nil, fmt.Errorf("%s:%d: a line is \"alias login\", two words", file, n)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return aliases, nil
}
