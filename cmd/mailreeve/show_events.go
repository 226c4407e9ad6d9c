package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"mailreeve/guard"
)

// copyEvents prints a stream of events until it ends.
func (in *invocation) copyEvents(stream io.Reader) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, maxRequest)
	for lines.Scan() {
		if in.json {
			in.printf("%s\n", lines.Bytes())
			continue
		}
		var e struct {
			guard.News
			Lost int64 `json:"lost"`
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("an event is not understood (another version of mailreeve?): %w", err)
		}
		switch {
		case e.Lost > 0:
			in.printf("… %d events lost, they came faster than this could read\n", e.Lost)
		case e.Ban != nil:
			about := aboutBan(e.Ban)
			if e.Elsewhere {
				about += " at another node"
			}
			in.printf("%s  %-16s %-12s %s\n", when(e.Time), plain(string(e.Kind)), plain(e.Ban.Scope), about)
		default:
			in.printf("%s  %-16s %-12s %-18s %s\n", when(e.Time), plain(string(e.Kind)), plain(e.Listener), unzoned(e.Addr), about(e.Event))
		}
	}
	return lines.Err()
}

// aboutBan gives what a ban is about, in a line.
func aboutBan(b *guard.Ban) string {
	s := []string{plain(b.Target), "rule=" + plain(b.Rule)}
	if b.Limit != "" {
		s = append(s, "points="+points(b.Score), "limit="+plain(b.Limit))
	}
	s = append(s, forHowLong(b.Until))
	if r := remark(*b); r != "" {
		s = append(s, "("+r+")")
	}
	return strings.Join(s, " ")
}
