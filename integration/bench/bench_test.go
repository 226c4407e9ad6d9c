package main

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mailreeve/guard"
)

// The benchmark runs, and gives a figure for mailreeve in each kind of row.
// What the figures are is not looked at.
func TestBenchRuns(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	bin := filepath.Join(t.TempDir(), "bench")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	raw := filepath.Join(t.TempDir(), "raw.json")
	cmd := exec.Command(bin, "-rounds", "1", "-window", "200ms", "-settle", "20ms", "-idle", "50", "-bans", "10000",
		"-targets", "mailreeve,haproxy,direct", "-json", raw,
		"-rows", "smtp-4k,smtps-4k-one,imaps-login,imap-download,round-trip,refused,idle,bans,overshoot")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("bench: %v\n%s", err, out)
	}
	lines, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{"smtp-4k", "smtps-4k-one", "imaps-login", "imap-download", "round-trip",
		"refused", "idle", "bans", "overshoot"} {
		if !strings.Contains(string(lines), `"row":"`+row+`","target":"mailreeve"`) {
			t.Errorf("row %s has no figure of mailreeve:\n%s", row, out)
		}
	}
}

// Every row has a name of its own and something to do.
func TestRowsAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range (&bench{}).rows() {
		if seen[r.name] {
			t.Errorf("two rows are named %q", r.name)
		}
		seen[r.name] = true
		if r.whole == nil && (r.work == nil || r.workers == 0 || len(r.metrics) == 0) {
			t.Errorf("row %q does nothing", r.name)
		}
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{5, 1, 3}, spread{3, 1, 5}},
		{[]float64{4, 1, 3, 2}, spread{2.5, 1, 4}},
	} {
		if got := spreadOf(test.values); got != test.want {
			t.Errorf("spreadOf(%v) = %v, want %v", test.values, got, test.want)
		}
	}
}

// Ratios are taken within a round, so that a slow round slows both sides.
func TestRatioIsRoundByRound(t *testing.T) {
	l := line{values: map[string]map[int]float64{
		nameMailreeve: {0: 10, 1: 100, 2: 1},
		"haproxy":     {0: 20, 1: 200},
	}}
	if got, ok := l.ratio("haproxy"); !ok || got != (spread{0.5, 0.5, 0.5}) {
		t.Errorf("got %v", got)
	}
	if _, ok := l.ratio("dovecot"); ok {
		t.Error("a ratio to a peer without figures")
	}
}

// Each entry of the list of bans is another network, and its client is in it.
func TestNoBanIsListedTwice(t *testing.T) {
	const n = 200_000
	seen := make(map[netip.Prefix]int, n)
	networks := 0
	for i := range n {
		p := bannedPrefix(i)
		if before, twice := seen[p]; twice {
			t.Fatalf("%v is entry %d and %d", p, before, i)
		}
		seen[p] = i
		if !p.Contains(clientOf(i)) {
			t.Fatalf("entry %d, %v, does not hold its client %v", i, p, clientOf(i))
		}
		if isNetwork(i) != (p.Bits() != 32 && p.Bits() != 64) {
			t.Fatalf("entry %d, %v: network %v", i, p, isNetwork(i))
		}
		if isNetwork(i) {
			networks++
		}
	}
	if networks != n/10 {
		t.Errorf("%d networks of %d", networks, n)
	}
}

// What Admit is compared with knows every client of the list, and all say the
// same of the others.
func TestOthersAnswerTheSame(t *testing.T) {
	const n = 20_000
	looks := otherLooks(n)
	banned := 0
	for i := range 2 * n {
		o := guard.Origin{Addr: clientOf(i)}
		first := looks[0].at(&o)
		for _, l := range looks {
			if got := l.at(&o); got != first || i < n && !got {
				t.Fatalf("client %d, %v: %s says %v, %s %v", i, o.Addr, l.name, got, looks[0].name, first)
			}
		}
		if first {
			banned++
		}
	}
	if banned > n*11/10 {
		t.Errorf("%d of %d clients are banned, about half should be", banned, 2*n)
	}
}
