package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"mailreeve/guard"
	"mailreeve/proxy"
)

// probeWithin bounds the look at all upstreams together; they are looked at
// side by side.
const probeWithin = 90 * time.Second

// A checkAnswer is what `check --json` prints.
type checkAnswer struct {
	Config string              `json:"config"`
	OK     bool                `json:"ok"`
	Errors []string            `json:"errors"`
	Probes []proxy.ProbeResult `json:"probes,omitempty"`
}

// checkVerb does what serve does before it serves, and looks at the servers
// behind; nothing is changed and nothing listens.
func checkVerb(flags *flag.FlagSet) action {
	offline := flags.Bool("no-probe", false, "do not connect to the servers behind")
	return func(ctx context.Context, in *invocation, args []string) error {
		if err := noArguments(args); err != nil {
			return err
		}
		answer := checkAnswer{Config: in.config, Errors: []string{}}
		c, err := loadConfig(in.config)
		if err == nil {
			err = inFile(in.config, checkFiles(c))
		}
		if err != nil {
			answer.Errors = strings.Split(err.Error(), "\n")
			return in.endCheck(answer, &exitError{exitConfig, err})
		}
		if !in.json {
			in.printf("%s: valid: %s, %s, %s\n", in.config, count(len(c.Listeners), "listener", "listeners"),
				count(len(c.Upstreams), "upstream", "upstreams"), count(len(c.Certificates), "certificate", "certificates"))
		}
		if *offline {
			answer.OK = true
			return in.endCheck(answer, nil)
		}
		ctx, cancel := context.WithTimeout(ctx, probeWithin)
		defer cancel()
		answer.Probes = proxy.Probe(ctx, c.proxyConfig())
		return in.endCheck(answer, in.showLearnt(&answer))
	}
}

// endCheck prints the answer where JSON is wanted; the error also decides the
// exit code.
func (in *invocation) endCheck(answer checkAnswer, err error) error {
	if in.json {
		if err := in.printJSON(answer); err != nil {
			return err
		}
	}
	return err
}

// checkFiles reads the files that the configuration names.
func checkFiles(c *Config) error {
	var errs []error
	for i, cert := range c.Certificates {
		if _, err := tls.LoadX509KeyPair(cert.Cert, cert.Key); err != nil {
			errs = append(errs, &proxy.ConfigError{
				Element: proxy.Element{Table: "certificate", Index: i, Key: "cert"},
				Msg:     fmt.Sprintf("certificate %s with key %s: %v", cert.Cert, cert.Key, err),
			})
		}
	}
	if _, err := readAliases(c.Guard.AliasFile); err != nil {
		errs = append(errs, &guard.KeyError{Key: "alias-file", Err: err})
	}
	return errors.Join(errs...)
}

// showLearnt prints what each server behind showed, and gives an error if one
// did not answer as it must.
func (in *invocation) showLearnt(answer *checkAnswer) error {
	down := 0
	for _, p := range answer.Probes {
		if !p.OK {
			down++
			answer.Errors = append(answer.Errors, fmt.Sprintf("%s at %s: %s", p.Upstream, p.Address, p.Error))
		}
		if in.json {
			continue
		}
		if !p.OK {
			in.printf("%s at %s (%s): %s\n", p.Upstream, p.Address, p.Protocol, p.Error)
			continue
		}
		in.printf("%s at %s (%s): ok%s%s\n", p.Upstream, p.Address, p.Protocol, comma(plain(p.Host)), comma(p.Family))
		for _, line := range wrap(p.Capabilities, 72) {
			in.printf("    %s\n", line)
		}
	}
	answer.OK = down == 0
	if down > 0 {
		return fmt.Errorf("%d of %d servers did not answer as they must", down, len(answer.Probes))
	}
	return nil
}

// comma sets a word that may be missing off from what is before it.
func comma(word string) string {
	if word == "" {
		return ""
	}
	return ", " + word
}

// wrap puts words on lines of at most the given width. They are a server's: what
// is not a plain character in them is escaped.
func wrap(words []string, width int) []string {
	var lines []string
	line := ""
	for _, w := range words {
		w = strings.Trim(strconv.QuoteToGraphic(w), `"`)
		if line != "" && len(line)+2+len(w) > width {
			lines, line = append(lines, line+","), ""
		}
		if line != "" {
			line += ", "
		}
		line += w
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
