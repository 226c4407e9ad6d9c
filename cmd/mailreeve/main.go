// Mailreeve is a TCP proxy in front of mail servers with fail2ban built in: it
// speaks SMTP and IMAP, sees what the server behind answers, and shuts the
// door on whoever guesses passwords.
//
// This package is wiring only: the configuration file, the commands an
// operator types, the admin API behind them, metrics, and the demo. The data
// path is package proxy, the judge package guard, the ears package protocol.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// The exit codes. Scripts rely on them; docs/commands.md lists them. They are
// those of sysexits.h, as sendmail's and Postfix's, since systemd shows small
// ones by names of its own (4 as NOPERMISSION). 2 is left to Go's runtime,
// which exits with it after a panic.
const (
	exitDone        = 0
	exitRefused     = 1  // it could not be done; the message says why
	exitUsage       = 64 // EX_USAGE: the command line is wrong
	exitUnreachable = 69 // EX_UNAVAILABLE: the running mailreeve cannot be reached
	exitConfig      = 78 // EX_CONFIG: the configuration is wrong
)

// An exitError carries the code to exit with. Errors without one exit with
// exitRefused.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // The first signal drains, a second one kills.
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program but for its process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, stdout, stderr)
	if err == nil {
		return exitDone
	}
	if errors.Is(err, flag.ErrHelp) {
		return exitDone
	}
	prefix := ""
	if isJournal(stderr) {
		prefix = errorPriority.prefix()
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(stderr, "%smailreeve: %s\n", prefix, line)
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	return exitRefused
}

// An invocation is what every command is given beside its own flags.
type invocation struct {
	stdout io.Writer
	stderr io.Writer

	// config is the configuration file. socket, if not empty, is the admin
	// socket to use whatever the file says.
	config string
	socket string
	// json prints what the API answered instead of a text for people.
	json bool
}

// A verb is a command.
type verb struct {
	name    string
	args    string
	summary string
	// setup adds the verb's own flags and returns what it does with the
	// arguments that are left.
	setup func(*flag.FlagSet) action
}

type action func(ctx context.Context, in *invocation, args []string) error

// dispatch finds the verb and runs it. The flags that every verb has may stand
// before it and after it.
func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	in := &invocation{stdout: stdout, stderr: stderr, config: defaultConfigFile}
	global := newFlags("mailreeve", in)
	if err := global.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			printUsage(stdout)
			return err
		}
		return usageError("%v", err)
	}
	name := global.Arg(0)
	switch name {
	case "", "help":
		if name == "help" && global.NArg() > 1 {
			return dispatch(ctx, []string{global.Arg(1), "--help"}, stdout, stderr)
		}
		printUsage(stdout)
		if name == "" {
			return usageError("name a command")
		}
		return nil
	}
	for _, v := range verbs() {
		if v.name == name {
			return v.run(ctx, in, global.Args()[1:])
		}
	}
	return usageError("there is no command %q%s; `mailreeve help` lists them", name, didYouMean(name))
}

func (v *verb) run(ctx context.Context, in *invocation, args []string) error {
	flags := newFlags(v.name, in)
	act := v.setup(flags)
	rest, err := parseInterspersed(flags, args)
	if errors.Is(err, flag.ErrHelp) {
		v.printHelp(in.stdout, flags)
		return err
	}
	if err != nil {
		return usageError("%s: %v; `mailreeve help %s` tells more", v.name, err, v.name)
	}
	return act(ctx, in, rest)
}

func newFlags(name string, in *invocation) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	flags.StringVar(&in.config, "config", in.config, "the configuration `FILE`")
	flags.StringVar(&in.socket, "socket", in.socket, "the admin socket's `PATH`, whatever the configuration says")
	flags.BoolVar(&in.json, "json", in.json, "print JSON")
	return flags
}

// parseInterspersed parses flags wherever they stand among the arguments, up
// to "--": `ban 192.0.2.1 --for 1h` is how people type it.
func parseInterspersed(flags *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		left := flags.Args()
		if len(left) == 0 {
			return rest, nil
		}
		if used := len(args) - len(left); used > 0 && args[used-1] == "--" {
			return append(rest, left...), nil
		}
		rest = append(rest, left[0])
		args = left[1:]
	}
}

func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func didYouMean(name string) string {
	var names []string
	for _, v := range verbs() {
		names = append(names, v.name)
	}
	if best := nearest(name, names); best != "" {
		return fmt.Sprintf(" (did you mean %q?)", best)
	}
	return ""
}

func printUsage(w io.Writer) {
	fmt.Fprint(w, "mailreeve stands in front of mail servers and keeps password guessers out.\n\n")
	fmt.Fprint(w, "Usage: mailreeve [--config FILE] [--json] COMMAND ...\n\n")
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %-11s %s\n", v.name, v.summary)
	}
	fmt.Fprint(w, "\n`mailreeve help COMMAND` tells more. `mailreeve demo` is the quickest way to see it work.\n")
}

func (v *verb) printHelp(w io.Writer, flags *flag.FlagSet) {
	usage := strings.TrimSpace(v.name + " [flags] " + v.args)
	fmt.Fprintf(w, "Usage: mailreeve %s\n\n%s.\n\nFlags:\n", usage, v.summary)
	flags.VisitAll(func(f *flag.Flag) {
		name, about := flag.UnquoteUsage(f)
		line := strings.TrimSpace("--" + f.Name + " " + name)
		fmt.Fprintf(w, "  %-18s %s", line, about)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" {
			fmt.Fprintf(w, " (default %s)", f.DefValue)
		}
		fmt.Fprintln(w)
	})
}
