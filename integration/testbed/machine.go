package testbed

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Machine runs systemd, in a container over this machine's own root, whose
// changes are in memory. It is a [Host] as far as the network goes. mailreeve is
// installed there as `make install` does it, and not started. Nothing of the
// machine stays.
type Machine struct {
	*Host
	log  LogFile
	proc *process
	init int // systemd's process id
}

// bootMachine lays the root out, installs what lies in the directory src, and
// goes in. systemd needs a control group of its own, in which hierarchy soever
// this machine keeps processes; what this machine runs as services is not to run
// there again. That there can be no such machine here is one thing, and that we
// cannot be installed another: exit code 78.
const bootMachine = `set -e
dir=$1 name=$2
mount --make-rprivate /
mount -t proc proc /proc
mkdir $dir/room
mount -t tmpfs -o mode=755 tmpfs $dir/room
mkdir $dir/room/up $dir/room/work $dir/room/root
mount -t overlay overlay -o lowerdir=/,upperdir=$dir/room/up,workdir=$dir/room/work $dir/room/root
root=$dir/room/root
rm -rf $root/etc/systemd/system/*.wants $root/etc/mailreeve $root/var/lib/mailreeve
(cd $dir/src && DESTDIR=$root HERE=$dir/src/mailreeve deploy/install.sh) || exit 78
cp $dir/mx.pem $dir/mx.key $root/etc/mailreeve/ || exit 78
for hierarchy in $CGROUPS; do
	mkdir $hierarchy/$name
	echo 0 >$hierarchy/$name/cgroup.procs
done
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --directory=$root --machine=$name --boot --register=no --keep-unit \
	--link-journal=no --capability=CAP_BPF --system-call-filter=bpf --console=read-only -- --unit=basic.target
`

// NewMachine boots a machine. The test is skipped where there can be none.
func (b *Bed) NewMachine(t testing.TB) *Machine {
	t.Helper()
	if _, err := exec.LookPath("systemd-nspawn"); err != nil {
		t.Skip("systemd-nspawn is not installed (package systemd-container)")
	}
	m := &Machine{Host: NewHost(t)}
	dir := b.TempDir(t)
	m.log = LogFile(filepath.Join(dir, "log"))
	b.stage(t, dir)
	name := "mailreeve-" + strconv.Itoa(os.Getpid())
	groups := hierarchies()
	cmd := exec.Command("/bin/sh", "-c", bootMachine, "machine", dir, name)
	cmd.Env = append(os.Environ(), "CGROUPS="+strings.Join(groups, " "))
	// As the first process of a process namespace it takes all others along.
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
	}
	var err error
	m.do(func() { m.proc, err = startProcess(string(m.log), cmd) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ignoreExit(m.proc.stop(syscall.SIGKILL, patience)); err != nil {
			t.Errorf("stop the machine: %v", err)
		}
		for _, h := range groups {
			removeGroups(t, filepath.Join(h, name))
		}
	})
	up := await(patience, func() bool {
		if m.init == 0 {
			m.init = descendant(m.proc.cmd.Process.Pid, "systemd")
		}
		return m.proc.ended() || m.init != 0 && m.Active("basic.target")
	})
	switch {
	case m.proc.ended() && m.proc.cmd.ProcessState.ExitCode() == 78:
		t.Fatalf("mailreeve cannot be installed:\n%s", lastLines(m.log.Text(), 30))
	case m.proc.ended():
		t.Skipf("systemd cannot be run in a container here:\n%s", lastLines(m.log.Text(), 5))
	case !up:
		t.Fatalf("systemd does not come up:\n%s", lastLines(m.log.Text(), 30))
	}
	m.Must(t, "systemd-sysusers", "mailreeve.conf")
	m.Must(t, "chgrp", "-R", "mailreeve", "/etc/mailreeve")
	m.Must(t, "chmod", "0640", "/etc/mailreeve/mx.key")
	return m
}

// stage puts into dir what is to be installed, and a certificate.
func (b *Bed) stage(t testing.TB, dir string) {
	t.Helper()
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(src, "mailreeve"), "./cmd/mailreeve")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	copied := exec.Command("cp", "-r", "deploy", "docs", "README.md", "CHANGELOG.md", "LICENSE", "config.toml.example", src)
	for _, cmd := range []*exec.Cmd{build, copied} {
		cmd.Dir = b.root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
	}
	if err := b.CA.Issue(filepath.Join(dir, "mx"), "mx.example.test"); err != nil {
		t.Fatal(err)
	}
}

// hierarchies are the control groups that systemd may want: those of version 2,
// and version 1's that only names processes.
func hierarchies() []string {
	return slices.DeleteFunc([]string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"},
		func(dir string) bool { return !exists(filepath.Join(dir, "cgroup.procs")) })
}

// removeGroups removes a control group with those in it, once their processes
// are gone.
func removeGroups(t testing.TB, dir string) {
	t.Helper()
	var err error
	gone := await(patience, func() bool {
		var dirs []string
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		slices.Reverse(dirs)
		for _, d := range dirs {
			err = os.Remove(d)
		}
		return !exists(dir)
	})
	if !gone {
		t.Errorf("a control group is left: %v", err)
	}
}

// descendant gives the child, or child of a child, of that name; 0 for none.
func descendant(pid int, name string) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	for _, word := range strings.Fields(string(text)) {
		child, err := strconv.Atoi(word)
		if err != nil {
			continue
		}
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", child)); err == nil && strings.TrimSpace(string(comm)) == name {
			return child
		}
		if found := descendant(child, name); found != 0 {
			return found
		}
	}
	return 0
}

// Run runs a command in the machine and gives what it printed.
func (m *Machine) Run(args ...string) (string, error) { return m.feed("", args...) }

func (m *Machine) feed(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(m.init), "--all", "--wd=/"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Must runs a command that must succeed, and gives what it printed.
func (m *Machine) Must(t testing.TB, args ...string) string {
	t.Helper()
	out, err := m.Run(args...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

// Write writes a file.
func (m *Machine) Write(t testing.TB, path, text string) {
	t.Helper()
	if out, err := m.feed(text, "tee", path); err != nil {
		t.Fatalf("write %s: %v\n%s", path, err, out)
	}
}

// Active tells whether a unit is active.
func (m *Machine) Active(unit string) bool {
	out, err := m.Run("systemctl", "is-active", unit)
	return err == nil && out == "active\n"
}

// Dial connects to a port of the machine, from the machine.
func (m *Machine) Dial(port int, limit time.Duration) (*Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return m.Host.Dial(ctx, "127.0.0.1", loopback(port))
}
