package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Instances with places of their own, behind those of the ordinary targets.
const (
	idlePlace   = 10 // and one more for each product, and dummy servers behind
	beforePlace = 20
	filterPlace = 30
	bansPlace   = 31
	guessPlace  = 32
)

// idleSteps are how many connections a product holds when its memory is taken.
// The limit of 20,000 descriptors allows for no more.
var idleSteps = []int{1000, 5000, 9000}

// beforeLogin is how many connections are held that say nothing.
const beforeLogin = 5000

// idleRow opens connections through fresh instances of all products at once,
// lets them be idle and takes the memory of each; then the same for
// connections that were greeted and say nothing. It is done once: memory does
// not swing.
func idleRow(ctx context.Context, b *bench, r *row) error {
	b.stopTargets()
	if b.options.rows == "" {
		b.fillStores()
	}
	err := b.holdIdle(ctx, r, idlePlace, "after login + IDLE", idleSteps, b.idleAfterLogin)
	return errors.Join(err, b.holdIdle(ctx, r, beforePlace, "before login", []int{beforeLogin}, b.idleBeforeLogin))
}

// An idler is a product with idle connections, in processes of their own.
type idler struct {
	*target
	server, clients *helper
	empty           memory // of the product without connections
}

type idleFigures func(r *row, i *idler, n int, what string, each memory, steal float64) error

func (b *bench) holdIdle(ctx context.Context, r *row, place int, what string, steps []int, keep idleFigures) error {
	var idlers []*idler
	defer func() {
		for _, i := range idlers {
			i.close()
		}
	}()
	for n, p := range b.chosen {
		if p.start == nil || !p.carries(r.service) {
			continue
		}
		i, err := b.newIdler(p, place+n, len(steps) > 1)
		if err != nil {
			b.note("Not measured idle: %v", err)
			continue
		}
		idlers = append(idlers, i)
	}
	for _, n := range steps {
		n = min(n, b.idle)
		machine, err := machineNow()
		if err != nil {
			return err
		}
		if err := openAll(idlers, n); err != nil {
			return err
		}
		select {
		case <-time.After(b.settleFor(n)):
		case <-ctx.Done():
			return ctx.Err()
		}
		now, err := machineNow()
		if err != nil {
			return err
		}
		for _, i := range idlers {
			m, err := i.memory()
			if err != nil {
				return err
			}
			each := memory{(m.RSS - i.empty.RSS) / float64(n), (m.PSS - i.empty.PSS) / float64(n)}
			if err := keep(r, i, n, what, each, now.stealSince(machine)); err != nil {
				return err
			}
		}
	}
	return nil
}

// settleFor is how long n connections are left alone. The figures to reach are
// about a minute; those beside them, which show how it grows, make do with half.
func (b *bench) settleFor(n int) time.Duration {
	if n == 5000 {
		return b.settle
	}
	return b.settle / 2
}

func (b *bench) idleAfterLogin(r *row, i *idler, n int, what string, each memory, steal float64) error {
	reach := ""
	if n == 5000 {
		reach = "≤ 8"
	}
	figure := metric{name: fmt.Sprintf("RSS at %d %s", n, what), unit: "KiB each", reach: reach, ofProxy: true}
	return b.add(r, figure, i.name, 0, each.RSS, steal)
}

func (b *bench) idleBeforeLogin(r *row, i *idler, n int, what string, each memory, steal float64) error {
	var c serverCounts
	if err := i.server.ask("counts", &c); err != nil {
		return err
	}
	figure := metric{name: fmt.Sprintf("RSS at %d %s", n, what), unit: "KiB each", reach: "≤ 8", ofProxy: true}
	upstream := metric{name: "upstream connections " + what, unit: "each", reach: "0", ofProxy: true}
	return errors.Join(
		b.add(r, figure, i.name, 0, each.RSS, steal),
		b.add(r, upstream, i.name, 0, float64(c.Open)/float64(n), steal),
	)
}

// newIdler starts a product, a dummy server and a crowd of clients for it.
func (b *bench) newIdler(p product, place int, login bool) (*idler, error) {
	s, err := b.setup(p, place, runtime.NumCPU())
	if err != nil {
		return nil, err
	}
	s.backend = backendAt(dummyBase + 1000 + 10*place)
	i := &idler{}
	if i.server, err = b.startDummy(fmt.Sprintf("dummy-%d", place), s.backend.SMTP); err != nil {
		return nil, err
	}
	if i.target, err = p.begin(s); err != nil {
		i.close()
		return nil, err
	}
	stage := "greeted"
	if login {
		stage = "idling"
	}
	log := filepath.Join(b.dir, fmt.Sprintf("clients-%d.log", place))
	if i.clients, err = startHelper(log, "hold", i.addr(imaps), stage); err != nil {
		i.close()
		return nil, err
	}
	// One connection has everything set up that the first one brings.
	if err = i.clients.ask("open 8", new(int)); err == nil {
		i.empty, err = i.memory()
	}
	if err != nil {
		i.close()
		return nil, err
	}
	return i, nil
}

func (i *idler) memory() (memory, error) {
	pids, err := i.pids()
	if err != nil {
		return memory{}, err
	}
	return memoryOf(pids)
}

func (i *idler) close() {
	if i.clients != nil {
		i.clients.stop()
	}
	if i.target != nil {
		i.target.stop()
	}
	if i.server != nil {
		i.server.stop()
	}
}

// openAll brings every product to n more connections, one after the other.
func openAll(idlers []*idler, n int) error {
	for _, i := range idlers {
		var open int
		if err := i.clients.ask(fmt.Sprintf("open %d", n+8), &open); err != nil {
			return fmt.Errorf("%s: %w", i.name, err)
		}
		if open != n+8 {
			return fmt.Errorf("%s: %d of %d idle connections could be opened\n%s", i.name, open, n+8, i.clients.tail())
		}
	}
	return nil
}

// hold is the program of a crowd of clients: "hold ADDRESS greeted|idling",
// told "open N" on its standard input until it shall end.
func hold(args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) != 2 {
		return errors.New("hold: an address and a stage are needed")
	}
	var held []*client
	fmt.Fprintln(stdout, "ready")
	for in := bufio.NewScanner(stdin); in.Scan(); {
		var n int
		if _, err := fmt.Sscanf(in.Text(), "open %d", &n); err != nil {
			return err
		}
		more, err := openIdle(args[0], args[1] == "idling", len(held), n)
		held = append(held, more...)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(stdout).Encode(len(held)); err != nil {
			return err
		}
	}
	return nil
}

// openIdle opens the from-th to the n-th connection, 16 at a time.
func openIdle(addr string, login bool, from, n int) ([]*client, error) {
	var mu sync.Mutex
	var opened []*client
	var faults []error
	var group sync.WaitGroup
	next := make(chan int)
	for range 16 {
		group.Go(func() {
			for i := range next {
				c, err := idleClient(addr, login, i)
				mu.Lock()
				if err != nil {
					faults = append(faults, err)
				} else {
					opened = append(opened, c)
				}
				mu.Unlock()
			}
		})
	}
	for i := from; i < n; i++ {
		next <- i
	}
	close(next)
	group.Wait()
	return opened, errors.Join(faults...)
}

// idleClient is greeted and, if it shall, logs in and begins to IDLE.
func idleClient(addr string, login bool, i int) (*client, error) {
	secure := clientTLS(certECDSA)
	if !login {
		c, err := dial(context.Background(), addr, source(i), secure)
		if err != nil {
			return nil, err
		}
		_, err = c.next()
		return c, err
	}
	c, err := openIMAP(context.Background(), i, addr, secure)
	if err != nil {
		return nil, err
	}
	if err := c.write("a IDLE\r\n"); err != nil {
		return nil, err
	}
	line, err := c.next()
	if err == nil && !strings.HasPrefix(string(line), "+") {
		err = fmt.Errorf("IDLE: unexpected reply %q", line)
	}
	return c, err
}
