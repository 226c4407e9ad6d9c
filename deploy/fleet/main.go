// Command fleet runs the example in this directory on one machine, with real
// processes: two stores (Valkey or Redis) watched by three Sentinels, three
// mailreeves that share them, and HAProxy in front. It attacks them with 200
// connections at once, kills the store's master, attacks again, and tells what
// the mail server behind saw. With --stay it then waits to be played with.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	stay := flag.Bool("stay", false, "leave all running until interrupted")
	from := flag.String("from", "deploy/fleet", "the directory of the example's files")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	f := &fleet{from: *from, words: map[string]string{}}
	err := f.play(ctx, *stay)
	f.end()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// A fleet is the running example.
type fleet struct {
	from, dir string
	words     map[string]string // what stands for {words} in the files
	processes []*exec.Cmd       // in the order in which they were started
	master    *exec.Cmd
	server    *mailServer
}

// play sets up the example and shows it.
func (f *fleet) play(ctx context.Context, stay bool) error {
	if err := f.prepare(); err != nil {
		return err
	}
	if err := f.start(ctx); err != nil {
		return fmt.Errorf("%w (see the logs in %s)", err, f.dir)
	}
	fmt.Println("three proxies behind HAProxy at 127.0.0.1:20143; the files and logs are in", f.dir)
	if err := f.attacked(ctx, "127.0.9.1", "while all is well"); err != nil {
		return err
	}
	fmt.Println("killing the store's master")
	if err := f.master.Process.Kill(); err != nil {
		return err
	}
	if err := f.told(ctx, "127.0.0.1:29321", "away"); err != nil {
		return err
	}
	fmt.Println("  /readyz of the first proxy says that the store is away")
	if err := f.connected(ctx); err != nil {
		return err
	}
	fmt.Println("  and the Sentinels have made the replica master: all three are connected again")
	if err := f.attacked(ctx, "127.0.9.2", "with the new master"); err != nil {
		return err
	}
	for n := 1; n <= 3; n++ {
		for _, addr := range []string{"127.0.9.1", "127.0.9.2"} {
			if err := f.bans(ctx, n, addr); err != nil {
				return err
			}
		}
	}
	fmt.Println("both attackers are banned at all three proxies")
	if stay {
		fmt.Printf("try: ./mailreeve bans --config %s ; interrupt to end\n", filepath.Join(f.dir, "mailreeve2.toml"))
		<-ctx.Done()
	}
	return nil
}

// prepare makes the directory, the secrets, the binary and the files.
func (f *fleet) prepare() (err error) {
	if f.dir, err = os.MkdirTemp("", "mailreeve-fleet-"); err != nil {
		return err
	}
	f.words["dir"] = f.dir
	for _, name := range []string{"password", "sentinel-password", "replica-password"} {
		f.words[name] = rand.Text()
	}
	if err := os.WriteFile(filepath.Join(f.dir, "store-password"), []byte(f.words["password"]+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(f.dir, "guess.key"), []byte(rand.Text()+rand.Text()), 0o600); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(f.dir, "mailreeve"), "./cmd/mailreeve")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

// file writes one of the example's files for a node and gives its path.
func (f *fleet) file(name string, node int) (string, error) {
	text, err := os.ReadFile(filepath.Join(f.from, name))
	if err != nil {
		return "", err
	}
	words := []string{"{node}", fmt.Sprint(node)}
	for w, v := range f.words {
		words = append(words, "{"+w+"}", v)
	}
	ext := filepath.Ext(name)
	path := filepath.Join(f.dir, fmt.Sprint(strings.TrimSuffix(name, ext), node, ext))
	return path, os.WriteFile(path, []byte(strings.NewReplacer(words...).Replace(string(text))), 0o600)
}

// start starts everything, each once what it needs answers.
func (f *fleet) start(ctx context.Context) (err error) {
	if f.server, err = newMailServer("127.0.0.1:24143"); err != nil {
		return err
	}
	store, err := firstOf("valkey-server", "redis-server")
	if err != nil {
		return err
	}
	for n := 1; n <= 2; n++ {
		conf, err := f.store(n)
		if err != nil {
			return err
		}
		cmd, err := f.run(fmt.Sprint("store", n), store, conf)
		if err != nil {
			return err
		}
		if n == 1 {
			f.master = cmd
		}
		if err := reachable(ctx, fmt.Sprint("127.0.0.1:2637", n)); err != nil {
			return err
		}
	}
	for n := 1; n <= 3; n++ {
		conf, err := f.file("sentinel.conf", n)
		if err != nil {
			return err
		}
		if err := os.Mkdir(filepath.Join(f.dir, fmt.Sprint("sentinel", n)), 0o700); err != nil {
			return err
		}
		if _, err := f.run(fmt.Sprint("sentinel", n), store, conf, "--sentinel"); err != nil {
			return err
		}
		if err := reachable(ctx, fmt.Sprint("127.0.0.1:2638", n)); err != nil {
			return err
		}
	}
	for n := 1; n <= 3; n++ {
		conf, err := f.file("mailreeve.toml", n)
		if err != nil {
			return err
		}
		if _, err := f.run(fmt.Sprint("mailreeve", n), filepath.Join(f.dir, "mailreeve"), "serve", "--config", conf); err != nil {
			return err
		}
	}
	if err := f.connected(ctx); err != nil {
		return err
	}
	haproxy, err := firstOf("haproxy", "/usr/sbin/haproxy")
	if err != nil {
		return err
	}
	if _, err := f.run("haproxy", haproxy, "-db", "-f", filepath.Join(f.from, "haproxy.cfg")); err != nil {
		return err
	}
	return reachable(ctx, "127.0.0.1:20143")
}

// store writes the configuration of a store; the second follows the first.
func (f *fleet) store(n int) (string, error) {
	conf, err := f.file("store.conf", n)
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(filepath.Join(f.dir, fmt.Sprint("store", n)), 0o700); err != nil {
		return "", err
	}
	if n == 1 {
		return conf, nil
	}
	text, err := os.ReadFile(conf)
	if err != nil {
		return "", err
	}
	return conf, os.WriteFile(conf, append(text, "replicaof 127.0.0.1 26371\n"...), 0o600)
}

// run starts a process whose output goes to a file, and which ends with us.
func (f *fleet) run(name, program string, args ...string) (*exec.Cmd, error) {
	log, err := os.Create(filepath.Join(f.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	f.processes = append(f.processes, cmd)
	return cmd, nil
}

// end ends the processes, last started first. The directory stays for a look.
func (f *fleet) end() {
	for i := len(f.processes) - 1; i >= 0; i-- {
		p := f.processes[i]
		_ = p.Process.Signal(syscall.SIGTERM) // it may have ended
		ended := time.AfterFunc(5*time.Second, func() { _ = p.Process.Kill() })
		_ = p.Wait() // however it ended
		ended.Stop()
	}
	if f.server != nil {
		f.server.listener.Close()
	}
}

func firstOf(names ...string) (string, error) {
	for _, n := range names {
		if path, err := exec.LookPath(n); err == nil {
			return path, nil
		}
	}
	return "", errors.New("none of " + strings.Join(names, ", ") + " is installed; go run ./integration/install")
}
