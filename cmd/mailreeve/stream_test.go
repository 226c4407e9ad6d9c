package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailreeve/guard"
)

// anAnswer has an admin API give an answer to whatever is asked.
func anAnswer(t *testing.T, answer func(io.Writer)) (in *invocation, out *bytes.Buffer) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) })}
	go func() { _ = server.Serve(listener) }() // until Close
	t.Cleanup(func() { server.Close() })
	out = new(bytes.Buffer)
	return &invocation{stdout: out, stderr: io.Discard, socket: socket}, out
}

func someBans(n int) (bans []guard.Ban) {
	for i := range n {
		bans = append(bans, guard.Ban{
			Target: fmt.Sprintf("192.0.2.%d", i), Scope: "auth", Rule: "authentication", Count: 1,
			Since: time.Unix(int64(i), 0).UTC(), Reason: "<&> no. " + fmt.Sprint(i), Kind: "ban",
		})
	}
	return bans
}

// Whether a list is printed whole or ban by ban makes no difference.
func TestBansAreListedAsTheyCome(t *testing.T) {
	for _, n := range []int{0, 1, 2, 2*bansAtOnce + 1} {
		bans := someBans(n)
		in, out := anAnswer(t, func(w io.Writer) {
			banList(func(yield func(*guard.Ban) bool) {
				for i := range bans {
					if !yield(&bans[i]) {
						return
					}
				}
			}).write(w.(http.ResponseWriter))
		})
		if err := in.listBans(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		lines := strings.Count(out.String(), "\n")
		if names := strings.Count(out.String(), "TARGET"); lines != n+1 || names != min(n, 1) || n == 0 && out.String() != "no bans\n" {
			t.Errorf("%d bans take %d lines, %d of them with the columns' names", n, lines, names)
		}
		out.Reset()
		in.json = true
		if err := in.listBans(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		whole := new(bytes.Buffer)
		if err := (&invocation{stdout: whole}).printJSON(orEmpty(bans)); err != nil {
			t.Fatal(err)
		}
		// The API writes these characters so.
		want := strings.NewReplacer("<", `\u003c`, ">", `\u003e`, "&", `\u0026`).Replace(whole.String())
		if out.String() != want {
			t.Errorf("%d bans as JSON:\n%.300s\nwant\n%.300s", n, out, want)
		}
	}
}

// A list that breaks off is no list: a script must not take it for whole.
func TestAListThatBreaksOffIsAnError(t *testing.T) {
	for name, answer := range map[string]string{
		"between two": `[{"target":"192.0.2.1"},`, "within one": `[{"target":"192.0.2.1"},{"tar`, "no list": `{"a":1}`,
		"nothing": "", "before its end": `[{"target":"192.0.2.1"}`, "an endless ban": `[{"reason":"` + strings.Repeat("x", maxBan),
	} {
		t.Run(name, func(t *testing.T) {
			for _, asJSON := range []bool{true, false} {
				in, _ := anAnswer(t, func(w io.Writer) { io.WriteString(w, answer) })
				in.json = asJSON
				if err := in.listBans(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "breaks off") {
					t.Errorf("as JSON %v: %v", asJSON, err)
				}
			}
		})
	}
}
