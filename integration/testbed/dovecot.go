package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Dovecot is a running Dovecot. The ports that end in Proxy want a PROXY
// header; the others are for comparing with, and for proving the bed.
type Dovecot struct {
	IMAPProxy  int // as in deploy/dovecot/90-mailreeve.conf
	POP3Proxy  int // as in deploy/dovecot/90-mailreeve.conf
	SieveProxy int // as in deploy/dovecot/90-mailreeve.conf
	IMAPSProxy int // the header, then TLS at once
	IMAP       int
	IMAPS      int
	POP3       int
	Sieve      int

	// Log is where all of its processes write. Every refused password is one
	// line there, also those that Postfix asked about. Who counts them asks for
	// FlushedLog.
	Log LogFile

	flushes atomic.Int64
	proc    *process
}

// A DovecotSetup says how a Dovecot differs from the one that is deployed.
type DovecotSetup struct {
	// Penalty leaves Dovecot's own delays on: 2 s for a failure, and more for
	// each further one from the same address.
	Penalty bool
	// Queue is Postfix's queue directory, for the sockets between the two;
	// "" makes none.
	Queue string
}

// dovecotMain is its configuration. The listeners behind mailreeve and the
// socket for Postfix come from deploy/dovecot/90-mailreeve.conf.
const dovecotMain = `protocols = imap pop3 lmtp sieve
base_dir = @DIR@/run
state_dir = @DIR@/state
log_path = @DIR@/dovecot.log
listen = 127.0.0.1
default_login_user = dovenull
default_internal_user = dovecot
default_process_limit = 1024
default_client_limit = 4096
ssl = yes
ssl_cert = <@DIR@/cert.pem
ssl_key = <@DIR@/cert.key
disable_plaintext_auth = yes
auth_mechanisms = plain login cram-md5
auth_verbose = yes
mail_max_userip_connections = 200
first_valid_uid = 1
mail_location = maildir:~/Maildir
passdb {
  driver = passwd-file
  args = scheme=PLAIN username_format=%u @DIR@/users
}
userdb {
  driver = passwd-file
  args = username_format=%u @DIR@/users
}
service imap-login {
  service_count = 0
  process_min_avail = 1
  inet_listener imap {
    port = @IMAP@
  }
  inet_listener imaps {
    port = @IMAPS@
    ssl = yes
  }
  inet_listener imaps-proxy {
    port = @IMAPSPROXY@
    haproxy = yes
    ssl = yes
  }
}
service pop3-login {
  service_count = 0
  inet_listener pop3 {
    port = @POP3@
  }
  inet_listener pop3s {
    port = 0
  }
}
service managesieve-login {
  service_count = 0
  inet_listener sieve {
    port = @SIEVE@
  }
}
service lmtp {
  unix_listener lmtp {
    mode = 0
  }
@LMTP@
}
@SNIPPET@
@PENALTY@
`

const dovecotLMTP = `  unix_listener @QUEUE@/private/dovecot-lmtp {
    mode = 0660
    user = postfix
    group = postfix
  }`

const (
	penaltyOff = "auth_failure_delay = 0\n"
	penaltyOn  = `service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0600
  }
}
`
)

// mailUser owns the mailboxes. Dovecot refuses to serve mail as root; the
// number needs no entry in the system's user database.
const mailUser = 5000

// startDovecot writes a configuration to dir and runs it.
func startDovecot(dir, root string, ports []int, users []User, ca *Authority, setup DovecotSetup) (*Dovecot, error) {
	d := &Dovecot{
		IMAPProxy: ports[0], POP3Proxy: ports[1], SieveProxy: ports[2], IMAPSProxy: ports[3],
		IMAP: ports[4], IMAPS: ports[5], POP3: ports[6], Sieve: ports[7],
		Log: LogFile(filepath.Join(dir, "dovecot.log")),
	}
	mail := filepath.Join(dir, "mail")
	for _, sub := range []string{mail, filepath.Join(dir, "run"), filepath.Join(dir, "state")} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Chown(mail, mailUser, mailUser); err != nil {
		return nil, err
	}
	if err := ca.Issue(filepath.Join(dir, "cert"), "imap.example.test"); err != nil {
		return nil, err
	}
	var passwd strings.Builder
	for _, u := range users {
		fmt.Fprintf(&passwd, "%s:{PLAIN}%s:%d:%d::%s/%s::\n", u.Login, u.Password, mailUser, mailUser, mail, u.Login)
	}
	if err := os.WriteFile(filepath.Join(dir, "users"), []byte(passwd.String()), 0o644); err != nil {
		return nil, err
	}
	conf, err := d.config(dir, root, setup)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "dovecot.conf")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	d.proc, err = startProcess(filepath.Join(dir, "dovecot.out"),
		exec.Command("/usr/sbin/dovecot", "-F", "-c", path))
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Dovecot) config(dir, root string, setup DovecotSetup) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/dovecot/90-mailreeve.conf"))
	if err != nil {
		return "", err
	}
	queue, lmtp := setup.Queue, ""
	if queue == "" {
		queue = dir
		if err := os.MkdirAll(filepath.Join(dir, "private"), 0o755); err != nil {
			return "", err
		}
	} else {
		lmtp = strings.ReplaceAll(dovecotLMTP, "@QUEUE@", queue)
	}
	snippet := strings.NewReplacer(
		"port = 11143", fmt.Sprintf("port = %d", d.IMAPProxy),
		"port = 11110", fmt.Sprintf("port = %d", d.POP3Proxy),
		"port = 14190", fmt.Sprintf("port = %d", d.SieveProxy),
		"/var/spool/postfix/", queue+"/",
	).Replace(string(text))
	penalty := penaltyOff
	if setup.Penalty {
		penalty = penaltyOn
	}
	return strings.NewReplacer(
		"@DIR@", dir, "@LMTP@", lmtp, "@SNIPPET@", snippet, "@PENALTY@", penalty,
		"@IMAP@", fmt.Sprint(d.IMAP), "@IMAPS@", fmt.Sprint(d.IMAPS),
		"@IMAPSPROXY@", fmt.Sprint(d.IMAPSProxy),
		"@POP3@", fmt.Sprint(d.POP3), "@SIEVE@", fmt.Sprint(d.Sieve),
	).Replace(dovecotMain), nil
}

func (d *Dovecot) ports() []int {
	return []int{d.IMAPProxy, d.POP3Proxy, d.SieveProxy, d.IMAPSProxy, d.IMAP, d.IMAPS, d.POP3, d.Sieve}
}

func (d *Dovecot) stop() error {
	return d.proc.stop(syscall.SIGTERM, 10*time.Second)
}
