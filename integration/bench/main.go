// Command bench measures mailreeve beside its peers: HAProxy, nginx's stream
// and mail proxies and Dovecot's, on one machine, in alternating rounds, with
// a dummy server behind that is faster than all of them.
//
//	go run ./integration/bench                         # everything, 15 minutes at most
//	go run ./integration/bench -rows smtps-4k,idle     # a part
//	go run ./integration/bench -list                   # the names of the parts
//
// It runs in a network namespace of its own and needs root for that. It prints
// one table: for each row the median, the range and mailreeve's ratio to each
// peer, taken round by round. Rates swing with the machine; CPU of the proxy's
// own processes and memory are steady, and decide.
//
// The flow of a run: main re-executes itself in the namespace; a bench starts
// the dummy server (this program again) and the products; every row drives a
// load through each product in turn; results are gathered and printed.
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
	"time"

	"mailreeve/integration/testbed"
)

// options are the command line.
type options struct {
	rows, targets string
	rounds        int
	window        time.Duration
	settle        time.Duration
	idle          int
	bans          int
	limit         time.Duration
	json          string
	binary        string
	against       string
	list          bool
}

func main() {
	if len(os.Args) > 1 {
		if program, ok := helpers[os.Args[1]]; ok {
			exit(program(os.Args[2:], os.Stdin, os.Stdout))
		}
	}
	var o options
	flag.StringVar(&o.rows, "rows", "", "only these `ROWS`, separated by commas")
	flag.StringVar(&o.targets, "targets", "", "only these `PRODUCTS`, separated by commas")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each figure is taken")
	flag.DurationVar(&o.window, "window", 500*time.Millisecond, "how long each is looked at")
	flag.DurationVar(&o.settle, "settle", time.Minute, "how long connections are idle before their memory is taken")
	flag.IntVar(&o.idle, "idle", 9000, "how many idle connections a product holds at most")
	flag.IntVar(&o.bans, "bans", 1_000_000, "how many bans are loaded at most")
	flag.DurationVar(&o.limit, "limit", 14*time.Minute, "when to stop, with what there is")
	flag.StringVar(&o.json, "json", "", "write every reading to this `FILE`, a JSON object a line")
	flag.StringVar(&o.binary, "binary", "", "measure this `FILE` instead of building mailreeve")
	flag.StringVar(&o.against, "against", "", "measure this `FILE`, another build of mailreeve, as one more peer (\"other\")")
	flag.BoolVar(&o.list, "list", false, "list the rows and products")
	flag.Parse()
	if o.list {
		exit(list(os.Stdout))
	}
	if os.Getenv(insideEnv) == "" {
		exit(enter(o))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, o, os.Stdout))
}

// helpers are the other programs that this one is.
var helpers = map[string]func([]string, io.Reader, io.Writer) error{
	"serve-dummy": serveDummy,
	"hold":        hold,
	"store-bans":  storeBansHelper,
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// enter does what needs the network and then runs in the namespace.
func enter(o options) error {
	if err := testbed.Install(); err != nil {
		return err
	}
	code, err := runInside()
	if err != nil {
		return err
	}
	os.Exit(code)
	return nil
}

func list(w io.Writer) error {
	b := &bench{}
	for _, r := range b.rows() {
		fmt.Fprintf(w, "%-18s %s\n", r.name, r.about)
	}
	var names []string
	for _, p := range b.products() {
		names = append(names, p.name)
	}
	_, err := fmt.Fprintf(w, "\nproducts: %s\n", strings.Join(names, " "))
	return err
}

// run is the whole benchmark, inside the namespace.
func run(ctx context.Context, o options, w io.Writer) error {
	if err := prepareNamespace(); err != nil {
		return err
	}
	b, err := newBench(o)
	if err != nil {
		return err
	}
	defer b.close()
	rows, err := pick(b.rows(), func(r row) string { return r.name }, o.rows)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	for i := range rows {
		r := &rows[i]
		if err := b.do(limited, r); err != nil {
			if ctx.Err() != nil {
				break
			}
			b.note("%s failed: %v", r.name, err)
		}
		if limited.Err() != nil {
			b.note("Stopped after %v, in row %s.", o.limit, r.name)
			break
		}
	}
	b.describe(w)
	b.table(w, b.names())
	b.closing(w)
	if len(b.lines) == 0 {
		return errors.New("nothing was measured")
	}
	return nil
}

// pick chooses by names, all if there are none.
func pick[T any](all []T, name func(T) string, names string) ([]T, error) {
	if names == "" {
		return all, nil
	}
	var chosen []T
	for want := range strings.SplitSeq(names, ",") {
		found := false
		for _, t := range all {
			if name(t) == want {
				chosen, found = append(chosen, t), true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no %q; -list tells what there is", want)
		}
	}
	return chosen, nil
}
