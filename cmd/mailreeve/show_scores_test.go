package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// Every event is listed once, and every column adds up to its ban or counter.
func TestWhyListsEachEventOnceAndAddsUp(t *testing.T) {
	g, err := guard.Open(guard.DefaultConfig(), guard.Options{Store: guard.StoreConfig{Kind: "memory"}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	o := &guard.Origin{Addr: netip.MustParseAddr("192.0.2.1"), Listener: "imaps", Scope: "auth", Protocol: "imap", Upstream: "imap"}
	for i := range 10 {
		a, _ := g.Attempt(t.Context(), o, &protocol.Credential{
			Mechanism: "LOGIN", Identities: []string{fmt.Sprintf("user%d", i/3)}, Secret: []byte(strconv.Itoa(i)),
		})
		if a != nil {
			g.Settle(a, protocol.Failure, "NO")
		}
	}
	g.Report(o, "", protocol.Event{Kind: protocol.BadCommand})
	w, err := g.Why("192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	in := &invocation{stdout: &out}
	in.showWhy(w)
	if n := strings.Count(out.String(), "auth-failure"); n != 10 {
		t.Errorf("%d lines of auth-failure, want 10:\n%s", n, &out)
	}
	sums := []guard.Score{}
	for _, b := range w.Bans {
		sums = append(sums, guard.Score{Points: b.Score, Events: b.Events})
	}
	sums = append(sums, w.Scores...)
	rows := scoreTable(sums)
	for i, s := range sums {
		sum := 0
		column := 4 + i
		for _, row := range rows[1 : len(rows)-1] {
			if row[column] != "-" {
				p, err := strconv.ParseFloat(row[column], 64)
				if err != nil {
					t.Fatal(err)
				}
				sum += int(1000*p + 0.5)
			}
		}
		if want := int(1000*s.Points + 0.5); sum != want || rows[len(rows)-1][column] != points(s.Points) {
			t.Errorf("column %s adds up to %d thousandths, want %d", rows[0][column], sum, want)
		}
	}
	if len(sums) < 4 {
		t.Errorf("%d bans and counters: %+v", len(sums), sums)
	}
}

// Two events that look the same are two.
func TestWhyKeepsEventsThatLookTheSameApart(t *testing.T) {
	e := guard.Scored{Event: guard.Event{Time: time.Unix(1, 0), Kind: protocol.BadCommand}, Points: 0.2}
	rows := scoreTable([]guard.Score{{Points: 0.4, Events: []guard.Scored{e, e}}, {Points: 0.2, Events: []guard.Scored{e}}})
	if len(rows) != 4 || rows[1][4]+rows[2][4] != "0.20.2" || rows[1][5]+rows[2][5] != "0.2-" {
		t.Errorf("rows %v", rows)
	}
}
