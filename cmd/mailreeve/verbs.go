package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"

	"mailreeve/guard"
)

// verbs lists the commands in the order in which help shows them.
func verbs() []verb {
	return []verb{
		{"serve", "", "run the proxy", serveVerb},
		{"check", "", "validate the configuration and probe every server behind", checkVerb},
		{"demo", "", "show it working on this machine, with a mail server of its own", demoVerb},
		{"status", "", "show what runs, who is connected, what is banned", statusVerb},
		{"bans", "[NETWORK]", "list the bans in force", bansVerb},
		{"ban", "ADDRESS|NETWORK...", "ban by hand", banVerb},
		{"unban", "[ADDRESS|NETWORK|LOGIN|all...]", "lift bans and forget points and history", unbanVerb},
		{"allow", "[ADDRESS|NETWORK...]", "let an address in whatever it does, or open a guarded login; alone: list", allowVerb},
		{"disallow", "ADDRESS|NETWORK|LOGIN...", "take an allow entry away again", disallowVerb},
		{"why", "ADDRESS|NETWORK|LOGIN", "explain where someone stands: events, points, how they add up", whyVerb},
		{"logins", "", "list the guarded logins and their familiar places", loginsVerb},
		{"top", "", "list who has the most points", topVerb},
		{"events", "", "show the latest events and follow them as they happen", eventsVerb},
		{"replay", "FILE...", "play an event log against another configuration: who would be banned, who was", replayVerb},
		{"import", "FILE|-", "ban what a list, CSV, JSON or fail2ban's database has", importVerb},
		{"export", "", "print the bans in force as a list, CSV or JSON", exportVerb},
		{"reload", "", "read the configuration again; on an error everything stays", reloadVerb},
		{"completion", "bash|zsh|fish", "print a completion script for a shell", completionVerb},
		{"version", "", "print the version", versionVerb},
	}
}

func noArguments(args []string) error {
	if len(args) > 0 {
		return usageError("what is %q? this command takes no arguments", args[0])
	}
	return nil
}

func (in *invocation) printJSON(v any) error {
	enc := json.NewEncoder(in.stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// ask calls the API and prints what it answers: as JSON, or with show as text
// for people.
func ask[T any](ctx context.Context, in *invocation, method, path string, q url.Values, body any, show func(T)) error {
	c, err := in.admin()
	if err != nil {
		return err
	}
	answer, err := c.call(ctx, method, path, q, body)
	if err != nil {
		return err
	}
	var v T
	if err := json.Unmarshal(answer, &v); err != nil {
		return fmt.Errorf("the answer of %s is not understood (another version of mailreeve?): %w", c.socket, err)
	}
	if in.json {
		var indented bytes.Buffer
		if err := json.Indent(&indented, answer, "", "  "); err != nil {
			return err
		}
		_, err := indented.WriteTo(in.stdout)
		return err
	}
	show(v)
	return nil
}

func statusVerb(*flag.FlagSet) action {
	return func(ctx context.Context, in *invocation, args []string) error {
		if err := noArguments(args); err != nil {
			return err
		}
		return ask(ctx, in, http.MethodGet, "/v1/status", nil, nil, in.showStatus)
	}
}

func bansVerb(flags *flag.FlagSet) action {
	var (
		scope    = flags.String("scope", "", "only bans of this `SCOPE`")
		rule     = flags.String("rule", "", "only bans by this `RULE`")
		kind     = flags.String("kind", "", "`KIND`: ban, guard, refuse, delay or any (default ban)")
		sort     = flags.String("sort", "", "sort by `FIELD`: until, since, target or rule (default until)")
		evidence = flags.Bool("evidence", false, "show the events that led to each")
	)
	return func(ctx context.Context, in *invocation, args []string) error {
		if len(args) > 1 {
			return usageError("bans takes one network at most")
		}
		if err := oneOf("sort", *sort, "until", "since", "target", "rule"); err != nil {
			return err
		}
		if err := oneOf("kind", *kind, "ban", "guard", "refuse", "delay", "any"); err != nil {
			return err
		}
		q := url.Values{}
		for key, value := range map[string]string{"scope": *scope, "rule": *rule, "kind": *kind, "sort": *sort} {
			if value != "" {
				q.Set(key, value)
			}
		}
		if len(args) == 1 {
			q.Set("within", args[0])
		}
		if *evidence {
			q.Set("evidence", "true")
		}
		return in.listBans(ctx, q)
	}
}

func oneOf(name, value string, words ...string) error {
	if value == "" {
		return nil
	}
	for _, w := range words {
		if value == w {
			return nil
		}
	}
	return usageError("--%s %q is none of %v", name, value, words)
}

func banVerb(flags *flag.FlagSet) action {
	var req guard.BanRequest
	flags.StringVar(&req.Scope, "scope", "", "where: all, auth, mx, a scope or a listener's `NAME` (default all)")
	flags.TextVar(&req.For, "for", guard.Duration(0), "how long: 30m, 1h, 7d, forever (`TIME`; default: ban-time)")
	flags.StringVar(&req.Reason, "reason", "", "a `TEXT` to find in the list later")
	return func(ctx context.Context, in *invocation, args []string) error {
		if len(args) == 0 {
			return usageError("name an address or a network to ban")
		}
		return forEach(args, func(target string) error {
			req.Target = target
			return ask(ctx, in, http.MethodPost, "/v1/bans", nil, req, in.showNewBan)
		})
	}
}

func unbanVerb(flags *flag.FlagSet) action {
	var req guard.UnbanRequest
	flags.StringVar(&req.Rule, "rule", "", "only what this `RULE` did")
	return func(ctx context.Context, in *invocation, args []string) error {
		if len(args) == 0 && req.Rule != "" {
			args = []string{"all"}
		}
		if len(args) == 0 {
			return usageError("name an address, a network or a login, or all, or a --rule")
		}
		return forEach(args, func(target string) error {
			req.Target = target
			return ask(ctx, in, http.MethodPost, "/v1/unban", nil, req, func(r guard.Removed) { in.showRemoved(target, r) })
		})
	}
}

// forEach does it for every argument, and tells all that failed.
func forEach(args []string, do func(string) error) error {
	var errs []error
	for _, arg := range args {
		errs = append(errs, do(arg))
	}
	return errors.Join(errs...)
}

func allowVerb(flags *flag.FlagSet) action {
	var req guard.AllowRequest
	flags.StringVar(&req.Login, "login", "", "open this `LOGIN` to strangers while it is guarded")
	flags.TextVar(&req.For, "for", guard.Duration(0), "how long: 30m, 1h, 7d (`TIME`; default: forever)")
	flags.StringVar(&req.Reason, "reason", "", "a `TEXT` to find in the list later")
	return func(ctx context.Context, in *invocation, args []string) error {
		switch {
		case len(args) > 0 && req.Login != "":
			return usageError("allow addresses and networks, or a --login; a login from one address alone cannot be allowed")
		case len(args) == 0 && req.Login == "":
			return ask(ctx, in, http.MethodGet, "/v1/allowed", nil, nil, in.showAllowed)
		case req.Login != "":
			return ask(ctx, in, http.MethodPost, "/v1/allow", nil, req, in.showNewAllowed)
		}
		return forEach(args, func(target string) error {
			req.Target = target
			return ask(ctx, in, http.MethodPost, "/v1/allow", nil, req, in.showNewAllowed)
		})
	}
}

func disallowVerb(flags *flag.FlagSet) action {
	// Who wrote allow --login will write it here too.
	login := flags.String("login", "", "the `LOGIN` that was opened, as allow takes it")
	return func(ctx context.Context, in *invocation, args []string) error {
		if *login != "" {
			args = append(args, *login)
		}
		if len(args) == 0 {
			return usageError("name an address, network or login")
		}
		return forEach(args, func(target string) error {
			return ask(ctx, in, http.MethodPost, "/v1/disallow", nil, disallowRequest{target}, func(d disallowed) {
				if d.Removed == 0 {
					in.printf("%s: no allow entry by command. Entries of the configuration are taken away there.\n", plain(target))
					return
				}
				in.printf("%s: no longer allowed\n", plain(target))
			})
		})
	}
}

func whyVerb(*flag.FlagSet) action {
	return func(ctx context.Context, in *invocation, args []string) error {
		if len(args) != 1 {
			return usageError("name one address, network or login")
		}
		return ask(ctx, in, http.MethodGet, "/v1/why", url.Values{"target": args}, nil, in.showWhy)
	}
}

func loginsVerb(*flag.FlagSet) action {
	return func(ctx context.Context, in *invocation, args []string) error {
		if err := noArguments(args); err != nil {
			return err
		}
		return ask(ctx, in, http.MethodGet, "/v1/logins", nil, nil, in.showLogins)
	}
}

func topVerb(flags *flag.FlagSet) action {
	n := flags.Int("n", 10, "how many of each `NUMBER`")
	return func(ctx context.Context, in *invocation, args []string) error {
		if err := noArguments(args); err != nil {
			return err
		}
		q := url.Values{"n": {fmt.Sprint(*n)}}
		return ask(ctx, in, http.MethodGet, "/v1/top", q, nil, in.showTop)
	}
}

func reloadVerb(*flag.FlagSet) action {
	return func(ctx context.Context, in *invocation, args []string) error {
		if err := noArguments(args); err != nil {
			return err
		}
		return ask(ctx, in, http.MethodPost, "/v1/reload", nil, nil, func(r reloaded) {
			fmt.Fprintf(in.stdout, "%s is in force\n", r.Config)
		})
	}
}

// eventsVerb shows the latest events and follows the stream until interrupted.
func eventsVerb(flags *flag.FlagSet) action {
	past := flags.Int("n", 20, "how many of the latest to show first, at most 1000 `NUMBER`")
	follow := flags.Bool("follow", true, "go on until interrupted; --follow=false shows the latest and ends")
	return func(ctx context.Context, in *invocation, args []string) error {
		if err := noArguments(args); err != nil {
			return err
		}
		if *past < 0 || *past > recentEvents {
			return usageError("-n %d is out of range, from 0 to %d; older events are in the event log ([events] log)", *past, recentEvents)
		}
		c, err := in.admin()
		if err != nil {
			return err
		}
		q := url.Values{}
		if *past > 0 {
			q.Set("past", fmt.Sprint(*past))
		}
		if !*follow {
			q.Set("follow", "false")
		}
		resp, err := c.request(ctx, http.MethodGet, "/v1/events", q, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if err := in.copyEvents(resp.Body); err != nil && ctx.Err() == nil {
			return err
		}
		if *follow && ctx.Err() == nil {
			return errors.New("mailreeve has ended the stream")
		}
		return nil
	}
}
