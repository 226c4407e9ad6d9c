package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
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
		out := bufio.NewWriter(in.stdout)
		w := newExporter(*format, out)
		q := url.Values{"sort": {"target"}, "scope": {*scope}, "rule": {*rule}}
		err := in.eachBan(ctx, q, func(text json.RawMessage) error {
			var b guard.Ban
			if err := json.Unmarshal(text, &b); err != nil {
				return fmt.Errorf("a ban is not understood (another version of mailreeve?): %w", err)
			}
			if b.Simulated {
				return nil
			}
			return w.add(exported{b.Target, b.Scope, b.Rule, b.Since, b.Until, b.Reason})
		})
		if err == nil {
			err = w.end()
		}
		return errors.Join(err, out.Flush())
	}
}

// An exporter writes bans in a format, one after the other.
type exporter struct {
	add func(exported) error
	end func() error
}

func newExporter(format string, out io.Writer) exporter {
	switch format {
	case "json":
		list := &jsonList{out: out}
		return exporter{func(b exported) error { return list.add(b) }, list.end}
	case "csv":
		return csvExporter(out)
	}
	last := ""
	return exporter{func(b exported) error {
		if b.Target == last { // it may be banned in several scopes
			return nil
		}
		last = b.Target
		_, err := fmt.Fprintln(out, b.Target)
		return err
	}, func() error { return nil }}
}

func csvExporter(out io.Writer) exporter {
	w := csv.NewWriter(out)
	// What goes wrong with a row, the end tells.
	_ = w.Write([]string{"target", "scope", "rule", "since", "until", "reason"})
	return exporter{func(b exported) error {
		end := "forever"
		if !b.Until.IsZero() {
			end = b.Until.UTC().Format(time.RFC3339)
		}
		return w.Write([]string{b.Target, b.Scope, b.Rule, b.Since.UTC().Format(time.RFC3339), end, b.Reason})
	}, func() error {
		w.Flush()
		return w.Error()
	}}
}
