package main

import (
	"context"
	"encoding/csv"
	"flag"
	"net/http"
	"net/url"
	"time"

	"mailreeve/guard"
)

// An exported ban is what export prints, and what import reads.
type exported struct {
	Target string    `json:"target"`
	Scope  string    `json:"scope"`
	Rule   string    `json:"rule"`
	Since  time.Time `json:"since"`
	// Until is missing where the ban never ends.
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// exportVerb prints the bans in force. With --json it prints JSON as well.
func exportVerb(flags *flag.FlagSet) action {
	var (
		format = flags.String("format", "plain", "`FORMAT`: plain, csv or json")
		scope  = flags.String("scope", "", "only bans of this `SCOPE`")
		rule   = flags.String("rule", "", "only bans by this `RULE`")
	)
	return func(ctx context.Context, in *invocation, args []string) error {
		if err := noArguments(args); err != nil {
			return err
		}
		if err := oneOf("format", *format, "plain", "csv", "json"); err != nil {
			return err
		}
		if in.json {
			*format = "json"
		}
		q := url.Values{"sort": {"target"}, "scope": {*scope}, "rule": {*rule}}
		asked := *in
		asked.json = false
		var bans []exported
		err := ask(ctx, &asked, http.MethodGet, "/v1/bans", q, nil, func(list []guard.Ban) {
			for _, b := range list {
				if !b.Simulated {
					bans = append(bans, exported{b.Target, b.Scope, b.Rule, b.Since, b.Until, b.Reason})
				}
			}
		})
		if err != nil {
			return err
		}
		return in.printExport(*format, orEmpty(bans))
	}
}

func (in *invocation) printExport(format string, bans []exported) error {
	switch format {
	case "json":
		return in.printJSON(bans)
	case "csv":
		w := csv.NewWriter(in.stdout)
		rows := [][]string{{"target", "scope", "rule", "since", "until", "reason"}}
		for _, b := range bans {
			end := "forever"
			if !b.Until.IsZero() {
				end = b.Until.UTC().Format(time.RFC3339)
			}
			rows = append(rows, []string{b.Target, b.Scope, b.Rule, b.Since.UTC().Format(time.RFC3339), end, b.Reason})
		}
		return w.WriteAll(rows)
	}
	seen := map[string]bool{}
	for _, b := range bans {
		if !seen[b.Target] { // it may be banned in several scopes
			in.printf("%s\n", b.Target)
		}
		seen[b.Target] = true
	}
	return nil
}
