package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"mailreeve/guard"
)

const (
	// maxImport bounds an import file, in bytes.
	maxImport = 256 << 20
	// importBatch is how many bans go in one request, and maxReason bounds the
	// reason of each in bytes, so that a request fits in maxImportRequest.
	importBatch      = 2000
	maxReason        = 200
	maxImportRequest = 1 << 20
)

// importFormats are the formats that --format may name.
func importFormats() []string { return []string{"plain", "csv", "json", "fail2ban", "fail2ban-db"} }

// An importRequest is the body of POST /v1/import.
type importRequest struct {
	Bans   []guard.BanRequest `json:"bans"`
	DryRun bool               `json:"dry_run,omitempty"`
}

// An imported is the answer, and what `import --json` prints.
type imported struct {
	DryRun bool `json:"dry_run,omitempty"`
	Banned int  `json:"banned"`
	// Allowed were left out because they are allowed, Already because a ban
	// that lasts as long is in force.
	Allowed int `json:"allowed"`
	Already int `json:"already"`
	// Expired have ended, and Repeated are in the file more than once.
	Expired  int `json:"expired"`
	Repeated int `json:"repeated"`
	// Refused are targets that cannot be banned.
	Refused []string `json:"refused"`
}

func importVerb(flags *flag.FlagSet) action {
	var (
		format = flags.String("format", "", "`FORMAT`: plain, csv, json, fail2ban or fail2ban-db (default: found out)")
		scope  = flags.String("scope", "", "where: all, auth, mx, a scope or a listener's `NAME` (default all)")
		length = guard.Duration(0)
		reason = flags.String("reason", "", "a `TEXT` for those that have none")
		dryRun = flags.Bool("dry-run", false, "only tell what would be done")
	)
	flags.TextVar(&length, "for", guard.Duration(0), "how long those without an end of their own (`TIME`; default: ban-time)")
	return func(ctx context.Context, in *invocation, args []string) error {
		if len(args) != 1 {
			return usageError("name one file, or - for standard input")
		}
		if err := oneOf("format", *format, importFormats()...); err != nil {
			return err
		}
		entries, err := readImport(ctx, args[0], *format)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if *reason == "" {
			*reason = "imported from " + filepath.Base(args[0])
		}
		requests, answer := importRequests(entries, guard.BanRequest{Scope: *scope, For: length, Reason: *reason})
		answer.DryRun = *dryRun
		if err := in.sendImport(ctx, requests, &answer); err != nil {
			return err
		}
		if in.json {
			return in.printJSON(answer)
		}
		in.showImported(answer)
		return nil
	}
}

// readImport reads the file, which may be standard input.
func readImport(ctx context.Context, name, format string) ([]importEntry, error) {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = os.Open(name); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	r := bufio.NewReader(f)
	if magic, _ := r.Peek(16); format == "fail2ban-db" || bytes.HasPrefix(magic, []byte("SQLite format 3")) {
		if name == "-" {
			return nil, errors.New("a database is read from its file; name that")
		}
		return readFail2banDatabase(ctx, name)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxImport+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxImport:
		return nil, fmt.Errorf("it has more than %d bytes", maxImport)
	}
	if format == "" {
		format = detectFormat(text)
	}
	return readEntries(format, text)
}

// importRequests makes requests of what has not ended; of what is in the list
// more than once the ban that lasts longest.
func importRequests(entries []importEntry, defaults guard.BanRequest) ([]guard.BanRequest, imported) {
	var out []guard.BanRequest
	answer := imported{Refused: []string{}}
	type place struct {
		prefix netip.Prefix
		scope  string
	}
	at := map[place]int{}
	for _, e := range entries {
		req := defaults
		req.Target = e.target
		if req.Scope == "" {
			req.Scope = e.scope
		}
		if e.reason != "" {
			req.Reason = e.reason
		}
		req.Reason = req.Reason[:min(len(req.Reason), maxReason)]
		switch {
		case e.forever:
			req.For = guard.Forever
		case !e.until.IsZero():
			left := time.Until(e.until).Round(time.Second)
			if left <= 0 {
				answer.Expired++
				continue
			}
			req.For = guard.Duration(left)
		}
		p, err := guard.ParsePrefix(e.target)
		if err != nil {
			answer.Refused = append(answer.Refused, err.Error())
			continue
		}
		if i, again := at[place{p, req.Scope}]; again {
			answer.Repeated++
			if req.For > out[i].For {
				out[i] = req
			}
			continue
		}
		at[place{p, req.Scope}] = len(out)
		out = append(out, req)
	}
	return out, answer
}

// sendImport has the running program ban them, and adds up what it did.
func (in *invocation) sendImport(ctx context.Context, requests []guard.BanRequest, sum *imported) error {
	asked := *in
	asked.json = false // only the sum is printed
	for len(requests) > 0 {
		n := min(importBatch, len(requests))
		body := importRequest{requests[:n], sum.DryRun}
		requests = requests[n:]
		err := ask(ctx, &asked, http.MethodPost, "/v1/import", nil, body, func(done imported) {
			sum.Banned += done.Banned
			sum.Allowed += done.Allowed
			sum.Already += done.Already
			sum.Refused = append(sum.Refused, done.Refused...)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (in *invocation) showImported(a imported) {
	verb := "banned"
	if a.DryRun {
		verb = "would be banned"
	}
	in.printf("%d %s\n", a.Banned, verb)
	for _, part := range []struct {
		n    int
		text string
	}{
		{a.Allowed, "left out: allowed"},
		{a.Already, "left out: banned as long already"},
		{a.Expired, "left out: ended"},
		{a.Repeated, "in the file more than once"},
		{len(a.Refused), "cannot be banned"},
	} {
		if part.n > 0 {
			in.printf("%d %s\n", part.n, part.text)
		}
	}
	for _, text := range a.Refused {
		in.printf("  %s\n", text)
	}
}

// apiImport bans many at once. What is allowed or banned as long already is
// left out.
func (d *daemon) apiImport(r *http.Request) (any, error) {
	var req importRequest
	if err := readBody(r, &req); err != nil {
		return nil, err
	}
	answer := imported{DryRun: req.DryRun, Refused: []string{}}
	var bans []guard.BanRequest
	standing := d.guard.Standing(req.Bans)
	for i, b := range req.Bans {
		p, err := guard.ParsePrefix(b.Target)
		if err != nil || p.Bits() < guard.MinBanBits || b.For < 0 {
			answer.Refused = append(answer.Refused, fmt.Sprintf("%q is no address or network that can be banned", b.Target))
			continue
		}
		if err := d.current().checkScope(b.Scope); err != nil {
			answer.Refused = append(answer.Refused, fmt.Sprintf("%s: %v", b.Target, err))
			continue
		}
		have := standing[i]
		switch {
		case d.guard.Exempt(p.Addr()):
			answer.Allowed++
		case have != nil && (have.Forever() || b.For != guard.Forever && !time.Now().Add(b.For.Std()-time.Second).After(have.Until)):
			answer.Already++
		default:
			bans = append(bans, b)
		}
	}
	if !req.DryRun && len(bans) > 0 {
		if _, err := d.guard.AddBans(bans); err != nil {
			return nil, err
		}
	}
	answer.Banned = len(bans)
	return answer, nil
}
