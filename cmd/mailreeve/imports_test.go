package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImportRule keeps imports going one way: cmd → proxy → guard → protocol.
// Who needs something from further up needs a parameter instead. The packages
// for tests (integration, protocol/transcript) may import what they test, and
// nothing of the product may import them.
func TestImportRule(t *testing.T) {
	const module = "mailreeve/"
	layers := []string{"cmd/mailreeve", "proxy", "guard", "protocol"}
	for i, pkg := range layers {
		for _, dep := range dependencies(t, module+pkg) {
			dep, ours := strings.CutPrefix(dep, module)
			if !ours || dep == pkg {
				continue
			}
			if !slices.ContainsFunc(layers[i+1:], func(below string) bool { return dep == below }) {
				t.Errorf("%s depends on %s; it may only depend on %v", pkg, dep, layers[i+1:])
			}
		}
	}
}

// TestProtocolDoesNoIO keeps the ears free of sockets, files and clocks, which
// is what lets a transcript test them completely.
func TestProtocolDoesNoIO(t *testing.T) {
	forbidden := map[string]string{
		"net":        "sockets belong to package proxy",
		"os":         "files belong to package guard's stores and to cmd",
		"crypto/tls": "TLS belongs to package proxy",
		"log/slog":   "a conversation returns what it noticed",
		"math/rand":  "a conversation is a function of its bytes",
		"time":       "the relay owns the clock",
	}
	for _, dep := range goList(t, `{{join .Imports "\n"}}`, "mailreeve/protocol") {
		if why, bad := forbidden[dep]; bad {
			t.Errorf("protocol imports %s: %s", dep, why)
		}
	}
}

func dependencies(t *testing.T, pkg string) []string {
	t.Helper()
	return goList(t, `{{join .Deps "\n"}}`, pkg)
}

func goList(t *testing.T, format, pkg string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", format, pkg).Output()
	if err != nil {
		t.Fatalf("go list %s: %v", pkg, err)
	}
	return strings.Fields(string(out))
}
