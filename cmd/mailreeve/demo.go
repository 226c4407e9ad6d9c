package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mailreeve/proxy"
)

// A demo is the whole thing on one machine: a mail server of its own, mailreeve
// in front of it with a configuration file like anyone's, and a small attack.
// Its directory is temporary and goes when the demo ends.
type demo struct {
	in     *invocation
	dir    string
	server *demoServer
	daemon *daemon
	log    *os.File
}

// demoVerb shows mailreeve at work. It ends with SIGINT, or with --once after
// the show.
func demoVerb(flags *flag.FlagSet) action {
	once := flags.Bool("once", false, "end after the show")
	quiet := flags.Bool("no-attack", false, "leave the attack to you")
	return func(ctx context.Context, in *invocation, args []string) (err error) {
		if err := noArguments(args); err != nil {
			return err
		}
		d, err := startDemo(ctx, in)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.stop()) }()
		d.introduce()
		if !*quiet {
			if err := d.show(ctx); err != nil {
				return err
			}
		}
		if *once {
			return nil
		}
		in.printf("\nIt stays up for you to try; Ctrl-C ends it and removes %s.\n", d.dir)
		<-ctx.Done()
		in.printf("\n")
		return nil
	}
}

// startDemo brings up the mail server and mailreeve in front of it.
func startDemo(ctx context.Context, in *invocation) (*demo, error) {
	d := &demo{in: in}
	if err := d.start(ctx); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

func (d *demo) start(ctx context.Context) error {
	var err error
	if d.dir, err = os.MkdirTemp("", "mailreeve-demo-"); err != nil {
		return err
	}
	if d.log, err = os.Create(filepath.Join(d.dir, "mailreeve.log")); err != nil {
		return err
	}
	level := new(slog.LevelVar)
	log, _ := newLogger(d.log, LogConfig{Level: "info", Format: "text"}, level)
	if d.server, err = newDemoServer(log); err != nil {
		return err
	}
	if err := writeSelfSigned(d.dir); err != nil {
		return err
	}
	if err := d.writeConfig(); err != nil {
		return err
	}
	c, err := loadConfig(d.config())
	if err != nil {
		return err
	}
	d.daemon, err = start(ctx, d.config(), c, proxy.SocketStore{}, log, level)
	if err != nil {
		return fmt.Errorf("%w (does another demo run?)", err)
	}
	return d.ready(ctx)
}

// ready waits until mailreeve has learnt what the servers offer.
func (d *demo) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		err := d.daemon.proxy.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the demo does not get ready: %w", err)
		case <-poll.C:
		}
	}
}

// stop ends everything and removes the demo's directory.
func (d *demo) stop() error {
	var errs []error
	if d.daemon != nil {
		errs = append(errs, d.daemon.stop())
	}
	if d.server != nil {
		errs = append(errs, d.server.Close())
	}
	if d.log != nil {
		errs = append(errs, d.log.Close())
	}
	if d.dir != "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

func (d *demo) config() string { return filepath.Join(d.dir, "config.toml") }

// introduce prints what is where and what to try.
func (d *demo) introduce() {
	w := d.in.stdout
	fmt.Fprintf(w, "mailreeve demo: a mail server of its own, and mailreeve in front of it.\n\n")
	var rows [][]string
	for _, l := range demoListeners() {
		rows = append(rows, []string{"  " + l.Address, l.Protocol, tlsInWords(l.TLS)})
	}
	rows = append(rows, []string{"  " + defaultMetrics, "http", "/metrics, /healthz, /readyz"})
	d.in.table(rows)
	fmt.Fprintf(w, "\nUsers and passwords:")
	for _, u := range demoUsers() {
		fmt.Fprintf(w, "  %s  %s", u.login, u.password)
	}
	fmt.Fprintf(w, "\nConfiguration, log and store: %s\n\n", d.dir)
	d.suggest(w)
}

func tlsInWords(mode string) string {
	if mode == "implicit" {
		return "TLS from the start"
	}
	return "STARTTLS"
}

// suggest prints commands to try from another terminal.
func (d *demo) suggest(w io.Writer) {
	me := ownCommand()
	fmt.Fprintf(w, "Try, from another terminal:\n\n")
	fmt.Fprintf(w, "  printf 'Subject: hello\\n\\nHi Alice\\n' | curl -k --url smtps://127.0.0.1:10465 -u bob@example.test:bob-pw \\\n"+
		"      --mail-from bob@example.test --mail-rcpt alice@example.test -T -\n")
	fmt.Fprintf(w, "  curl -k 'imaps://127.0.0.1:10993/INBOX;MAILINDEX=1' -u alice@example.test:alice-pw\n")
	fmt.Fprintf(w, "  curl -k pop3s://127.0.0.1:10995/1 -u alice@example.test:alice-pw\n")
	fmt.Fprintf(w, "  openssl s_client -quiet -connect 127.0.0.1:10587 -starttls smtp\n")
	fmt.Fprintf(w, "  for i in 1 2 3 4 5 6 7; do curl -k --interface 127.0.0.77 imaps://127.0.0.1:10993 -u alice@example.test:guess$i; done\n")
	fmt.Fprintf(w, "  curl -s http://%s/metrics | grep ^mailreeve\n", defaultMetrics)
	for _, verb := range []string{"bans", "why 127.0.0.66", "unban 127.0.0.66", "events", "status"} {
		fmt.Fprintf(w, "  %s %s --config %s\n", me, verb, d.config())
	}
}

// ownCommand is how to call this program again: `go run` leaves a binary that
// is gone tomorrow.
func ownCommand() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ./cmd/mailreeve"
	}
	return os.Args[0]
}
