package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A Room is a root directory in which packages are unpacked that cannot be
// installed beside the others: Debian's mail servers exclude each other. It is
// the machine's own root with the packages laid over it in memory, has its own
// processes and mounts, and shares the network. It ends with its first process,
// and nothing of it stays.
type Room struct {
	// Dir is a directory that both sides see under the same path.
	Dir string
	// Log is what its first process and that one's children print.
	Log LogFile

	proc *process
}

// enterRoom mounts the room, unpacks and goes in. The root directory cannot be
// overlaid by one of its own subdirectories, hence the tmpfs; tar keeps the
// links that lead from /lib to /usr/lib. What runs in the room must not find
// the machine's devices, or it would make its log socket among them.
const enterRoom = `set -e
room=$1/room debs=$2
mount --make-rprivate /
mkdir -p $room
mount -t tmpfs -o mode=755 tmpfs $room
mkdir $room/up $room/work $room/root
mount -t overlay overlay -o lowerdir=/,upperdir=$room/up,workdir=$room/work $room/root
root=$room/root
mount -t proc proc $root/proc
mount -t tmpfs -o mode=755 tmpfs $root/dev
for d in null zero full random urandom; do touch $root/dev/$d; mount --bind /dev/$d $root/dev/$d; done
mkdir -m 1777 $root/dev/shm
ln -s /proc/self/fd $root/dev/fd
mount --bind $1 $root$1
for deb in $debs/*.deb; do dpkg-deb --fsys-tarfile $deb | tar -C $root --keep-directory-symlink -xf -; done
exec chroot $root /bin/sh -e $1/script
`

// newRoom unpacks packages in a room and runs a script there, which must not
// come back while the server runs. Beside it lie more files in Dir;
// @DIR@ in any of them, and in the script, is Dir. The test is skipped where
// packages cannot be had or rooms cannot be made.
func (b *Bed) newRoom(t testing.TB, packages []string, script string, files map[string]string) *Room {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skipf("only root can unpack %s in a place of its own", packages[0])
	}
	debs, err := download(packages)
	if err != nil {
		t.Skipf("no packages: %v", err)
	}
	r := &Room{Dir: b.TempDir(t)}
	r.Log = LogFile(filepath.Join(r.Dir, "log"))
	files["script"] = script
	for name, text := range files {
		text = strings.ReplaceAll(text, "@DIR@", r.Dir)
		if err := os.WriteFile(filepath.Join(r.Dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/bin/sh", "-c", enterRoom, "room", r.Dir, debs)
	// The first process of a process namespace takes no other signal, and all
	// others end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
	}
	if r.proc, err = startProcess(string(r.Log), cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ignoreExit(r.proc.stop(syscall.SIGKILL, patience)); err != nil {
			t.Errorf("stop %s: %v", packages[0], err)
		}
		if t.Failed() {
			t.Logf("the last lines of %s:\n%s", packages[0], lastLines(r.Log.Text(), 30))
		}
	})
	return r
}

// await waits until the room's servers take connections.
func (r *Room) await(t testing.TB, ports ...int) {
	t.Helper()
	if err := awaitPorts(r.proc, ports); err != nil {
		t.Fatalf("%v\n%s", err, lastLines(r.Log.Text(), 30))
	}
}

// download fetches packages, and what they need that is not installed, once
// for all runs, and returns the directory that they are in. A package of another
// suite than this machine's is "name/suite".
func download(packages []string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache"
	}
	dir := filepath.Join(cache, "mailreeve-tests", packages[0])
	whole := filepath.Join(dir, "whole")
	if exists(whole) {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	options, err := otherSuite(dir, packages[0])
	if err != nil {
		return "", err
	}
	needed, err := neededBy(options, packages)
	if err != nil {
		if failed := aptGet(slices.Concat(options, []string{"update", "-q"})...); failed != nil {
			return "", errors.Join(err, failed)
		}
		if needed, err = neededBy(options, packages); err != nil {
			return "", err
		}
	}
	cmd := exec.Command("apt-get", slices.Concat(options, []string{"download", "-q"}, needed)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download: %w\n%s", err, lastLines(string(out), 5))
	}
	return dir, os.WriteFile(whole, nil, 0o644)
}

// otherSuite gives the options by which apt knows the suite of "name/suite", from
// lists of its own in dir: this machine's stay as they are.
func otherSuite(dir, pkg string) (options []string, err error) {
	_, suite, found := strings.Cut(pkg, "/")
	if !found {
		return nil, nil
	}
	sources := filepath.Join(dir, "sources.list")
	lists := filepath.Join(dir, "lists")
	if err := os.MkdirAll(filepath.Join(lists, "partial"), 0o755); err != nil {
		return nil, err
	}
	for _, o := range []string{
		"Dir::Etc::sourcelist=" + sources, "Dir::Etc::sourceparts=-", "Dir::State::lists=" + lists,
		"Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=", "APT::Sandbox::User=root",
	} {
		options = append(options, "-o", o)
	}
	release, _, _ := strings.Cut(suite, "-")
	text := fmt.Sprintf("deb http://deb.debian.org/debian %s main\ndeb http://deb.debian.org/debian %s main\n", release, suite)
	return options, os.WriteFile(sources, []byte(text), 0o644)
}

// neededBy asks apt what it would install.
func neededBy(options, packages []string) ([]string, error) {
	args := slices.Concat(options, []string{"install", "--simulate", "--no-install-recommends"}, packages)
	out, err := exec.Command("apt-get", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("apt-get %s: %w", strings.Join(args, " "), err)
	}
	var needed []string
	for line := range strings.Lines(string(out)) {
		// Inst NAME [THE VERSION THAT IS HERE] (VERSION SUITE…)
		if rest, ok := strings.CutPrefix(line, "Inst "); ok {
			name, _, _ := strings.Cut(rest, " ")
			_, version, _ := strings.Cut(rest, "(")
			version, _, _ = strings.Cut(version, " ")
			needed = append(needed, name+"="+version)
		}
	}
	return needed, nil
}

// TakeAway renames a file in Dir, so that the server goes without, until the
// function that is returned brings it back.
func (r *Room) TakeAway(t testing.TB, name string) (bringBack func()) {
	t.Helper()
	path := filepath.Join(r.Dir, name)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Rename(path+".away", path); err != nil {
			t.Error(err)
		}
	}
}
