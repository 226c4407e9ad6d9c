package main

import (
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"mailreeve/proxy"
)

// TestUnitFitsTheDefaults keeps the systemd unit to what the program needs by
// default: time to drain, descriptors, its two capabilities, its directories.
func TestUnitFitsTheDefaults(t *testing.T) {
	text, err := os.ReadFile("../../deploy/systemd/mailreeve.service")
	if err != nil {
		t.Fatal(err)
	}
	value := func(key string) string {
		m := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("the unit has no %s", key)
		}
		return string(m[1])
	}
	number := func(key string) int {
		n, err := strconv.Atoi(value(key))
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		return n
	}
	stop := time.Duration(number("TimeoutStopSec")) * time.Second
	if drain := proxy.DefaultTimeouts().Drain.Std(); stop <= drain {
		t.Errorf("systemd kills after %v, in the middle of a drain of %v", stop, drain)
	}
	if have, need := number("LimitNOFILE"), 2*proxy.DefaultLimits().Connections; have <= need {
		t.Errorf("%d descriptors, and %d are needed", have, need)
	}
	for key, want := range map[string]string{
		"Type":                  "notify",
		"ExecStart":             "/usr/local/bin/mailreeve serve",
		"ExecReload":            "/usr/local/bin/mailreeve reload",
		"User":                  "mailreeve",
		"RuntimeDirectory":      "mailreeve",
		"StateDirectory":        "mailreeve",
		"AmbientCapabilities":   "CAP_NET_BIND_SERVICE CAP_BPF",
		"CapabilityBoundingSet": "CAP_NET_BIND_SERVICE CAP_BPF",
	} {
		if got := value(key); got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}
}
