package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// A requirement is a Debian package and a file of it, which tells whether the
// package is there without asking dpkg.
type requirement struct{ pkg, file string }

// requirements are what the tests use.
var requirements = []requirement{
	{"ca-certificates", "/etc/ssl/certs/ca-certificates.crt"},
	{"gcc", "/usr/bin/gcc"}, // for the race detector
	{"libc6-dev", "/usr/include/stdlib.h"},
	{"postfix", "/usr/sbin/postfix"},
	{"dovecot-core", "/usr/sbin/dovecot"},
	{"dovecot-imapd", "/usr/lib/dovecot/imap-login"},
	{"dovecot-pop3d", "/usr/lib/dovecot/pop3-login"},
	{"dovecot-lmtpd", "/usr/lib/dovecot/lmtp"},
	{"dovecot-managesieved", "/usr/lib/dovecot/managesieve-login"},
	{"dovecot-sieve", "/usr/lib/dovecot/modules/lib90_sieve_plugin.so"},
	{"swaks", "/usr/bin/swaks"},
	{"curl", "/usr/bin/curl"},
	{"msmtp", "/usr/bin/msmtp"},
	{"isync", "/usr/bin/mbsync"},
	{"hydra", "/usr/bin/hydra"},
	{"python3", "/usr/bin/python3"},
	{"sqlite3", "/usr/bin/sqlite3"},
	{"prometheus", "/usr/bin/promtool"},
	{"redis-server", "/usr/bin/redis-server"}, // and the Sentinel, which is the same program
	{"iproute2", "/usr/sbin/ip"},              // for networks that are cut
	{"systemd-container", "/usr/bin/systemd-nspawn"},
	// The peers that the benchmark compares with.
	{"haproxy", "/usr/sbin/haproxy"},
	{"nginx", "/usr/sbin/nginx"},
	{"libnginx-mod-mail", "/usr/lib/nginx/modules/ngx_mail_module.so"},
	{"libnginx-mod-stream", "/usr/lib/nginx/modules/ngx_stream_module.so"},
}

// clients are what only the table of clients uses.
var clients = []requirement{
	{"mutt", "/usr/bin/mutt"},
	{"offlineimap3", "/usr/bin/offlineimap"},
	{"fetchmail", "/usr/bin/fetchmail"},
	{"sieve-connect", "/usr/bin/sieve-connect"},
	{"nmap", "/usr/bin/nmap"},
	{"sslscan", "/usr/bin/sslscan"},
	{"testssl.sh", "/usr/bin/testssl"},
}

// installLock keeps two test processes from running apt-get at once.
const installLock = "/tmp/mailreeve-install.lock"

// Install installs those Debian packages that are missing. None of their
// daemons is started: the tests start their own. It needs root if anything is
// missing.
func Install() error { return install(requirements) }

// InstallClients does the same for the mail clients and scanners.
func InstallClients() error { return install(clients) }

func install(list []requirement) error {
	lock, err := os.OpenFile(installLock, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return fmt.Errorf("lock the installation: %w", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock the installation: %w", err)
	}

	missing := missingPackages(list)
	if len(missing) == 0 {
		return nil
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("missing packages: %s; run the tests as root, or install them first",
			strings.Join(missing, " "))
	}
	restore, err := forbidServices()
	if err != nil {
		return err
	}
	defer restore()
	if err := aptGet("update", "-q"); err != nil {
		return err
	}
	args := []string{"install", "-y", "-q", "--no-install-recommends"}
	if err := aptGet(append(args, missing...)...); err != nil {
		return err
	}
	if missing = missingPackages(list); len(missing) > 0 {
		return fmt.Errorf("installed, but still missing: %s", strings.Join(missing, " "))
	}
	return nil
}

func missingPackages(list []requirement) []string {
	var missing []string
	for _, r := range list {
		if _, err := os.Stat(r.file); err != nil {
			missing = append(missing, r.pkg)
		}
	}
	return missing
}

func aptGet(args ...string) error {
	cmd := exec.Command("apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, lastLines(string(out), 20))
	}
	return nil
}

// policyFile is asked by Debian's maintainer scripts before they start a
// daemon; exit code 101 forbids it.
const policyFile = "/usr/sbin/policy-rc.d"

// forbidServices keeps packages from starting their daemons. A policy that is
// there already is somebody else's and stays.
func forbidServices() (restore func(), err error) {
	f, err := os.OpenFile(policyFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if os.IsExist(err) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("forbid services: %w", err)
	}
	if _, err := f.WriteString("#!/bin/sh\nexit 101\n"); err != nil {
		f.Close()
		return nil, fmt.Errorf("forbid services: %w", err)
	}
	return func() { os.Remove(policyFile) }, f.Close()
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

// moduleRoot finds the directory of go.mod, above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
		dir = parent
	}
}
