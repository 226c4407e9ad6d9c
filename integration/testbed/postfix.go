package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Postfix is a running Postfix. The ports that end in Proxy want a PROXY
// header; the others are for comparing with, and for proving the bed.
type Postfix struct {
	MXProxy         int // as in deploy/postfix/master.cf
	SubmissionProxy int // as in deploy/postfix/master.cf
	MXLaxProxy      int // smtpd_hard_error_limit raised to 1000
	SMTPSProxy      int // the header, then TLS at once; submission
	MX              int
	Submission      int
	XClient         int // no header, but XCLIENT from us; AUTH

	// Log is where all of its daemons write.
	Log LogFile

	proc    *process // postfix-script, which waits for the master
	pidFile string   // the master's
}

// postfixMain is its main.cf. Name lookups are off because they cost seconds
// where there is no DNS; chroot is off because the jail would need files.
const postfixMain = `compatibility_level = 3.6
queue_directory = @DIR@/queue
data_directory = @DIR@/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = @DIR@/postfix.log
maillog_file_prefixes = @DIR@
myhostname = mx.example.test
mydestination =
mynetworks = 192.0.2.0/24
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
disable_dns_lookups = yes
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = example.test
virtual_mailbox_maps = texthash:@DIR@/recipients
virtual_transport = lmtp:unix:private/dovecot-lmtp
message_size_limit = 67108864
virtual_mailbox_limit = 0
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_recipient_restrictions =
  check_recipient_access texthash:@DIR@/access
smtpd_error_sleep_time = 0
smtpd_tls_cert_file = @DIR@/cert.pem
smtpd_tls_key_file = @DIR@/cert.key
smtpd_tls_security_level = may
default_process_limit = 400
smtpd_client_connection_rate_limit = 0
anvil_status_update_time = 3600s
@SNIPPET@
smtpd_client_connection_count_limit = 0
`

// postfixAccess has recipients that are refused for reasons that say nothing
// about whether they exist.
const postfixAccess = `greylisted@example.test 450 4.2.0 Greylisted, see http://postgrey.schweikert.ch/help/example.test.html
listed@example.test 554 5.7.1 Service unavailable; Client host [127.0.0.2] blocked using zen.example.test
policy@example.test 554 5.7.1 Client host rejected: Access denied
`

// postfixMaster is what every master.cf has, and the bed's own listeners.
const postfixMaster = `@MX@ inet n - n - - smtpd
  -o syslog_name=postfix/direct
@SUBMISSION@ inet n - n - - smtpd
  -o syslog_name=postfix/direct-submission
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_tls_auth_only=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
@MXLAX@ inet n - n - - smtpd
  -o syslog_name=postfix/lax
  -o smtpd_upstream_proxy_protocol=haproxy
  -o smtpd_tls_security_level=none
  -o smtpd_hard_error_limit=1000
  -o smtpd_soft_error_limit=1000
@SMTPS@ inet n - n - - smtpd
  -o syslog_name=postfix/smtps
  -o smtpd_upstream_proxy_protocol=haproxy
  -o smtpd_tls_wrappermode=yes
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
@XCLIENT@ inet n - n - - smtpd
  -o syslog_name=postfix/xclient
  -o smtpd_authorized_xclient_hosts=127.0.0.1
  -o smtpd_tls_security_level=none
  -o smtpd_tls_auth_only=no
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject_unauth_destination
postlog   unix-dgram n - n - 1 postlogd
pickup    unix n - n 60 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
lmtp      unix - - n - - lmtp
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
@SNIPPET@`

// startPostfix writes a configuration to dir and runs it.
func startPostfix(dir, root string, ports []int, users []User, ca *Authority) (*Postfix, error) {
	p := &Postfix{
		MXProxy: ports[0], SubmissionProxy: ports[1], MXLaxProxy: ports[2],
		SMTPSProxy: ports[3], MX: ports[4], Submission: ports[5], XClient: ports[6],
		Log: LogFile(filepath.Join(dir, "postfix.log")), pidFile: filepath.Join(dir, "queue/pid/master.pid"),
	}
	etc := filepath.Join(dir, "etc")
	for _, d := range []string{etc, filepath.Join(dir, "queue"), filepath.Join(dir, "data")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if out, err := exec.Command("chown", "postfix", filepath.Join(dir, "data")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("chown: %w: %s", err, out)
	}
	if err := ca.Issue(filepath.Join(dir, "cert"), "mx.example.test"); err != nil {
		return nil, err
	}
	if err := p.writeConfig(dir, root, users); err != nil {
		return nil, err
	}
	var err error
	p.proc, err = startProcess(filepath.Join(dir, "postfix.out"),
		exec.Command("/usr/sbin/postfix", "-c", etc, "start-fg"))
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Postfix) writeConfig(dir, root string, users []User) error {
	mainSnippet, err := os.ReadFile(filepath.Join(root, "deploy/postfix/main.cf"))
	if err != nil {
		return err
	}
	masterSnippet, err := os.ReadFile(filepath.Join(root, "deploy/postfix/master.cf"))
	if err != nil {
		return err
	}
	services := strings.NewReplacer(
		"127.0.0.1:2525", loopback(p.MXProxy), "127.0.0.1:2587", loopback(p.SubmissionProxy),
	).Replace(string(masterSnippet))
	if services == string(masterSnippet) {
		return fmt.Errorf("deploy/postfix/master.cf has no service on 127.0.0.1:2525 or :2587")
	}

	var recipients strings.Builder
	for _, u := range users {
		fmt.Fprintf(&recipients, "%s %s\n", u.Login, u.Login)
	}
	for _, r := range []string{"greylisted", "listed", "policy", "postmaster"} {
		fmt.Fprintf(&recipients, "%s@example.test alice@example.test\n", r)
	}
	files := map[string]string{
		"etc/main.cf": strings.NewReplacer("@DIR@", dir, "@SNIPPET@", string(mainSnippet)).Replace(postfixMain),
		"etc/master.cf": strings.NewReplacer(
			"@MX@", loopback(p.MX), "@SUBMISSION@", loopback(p.Submission),
			"@MXLAX@", loopback(p.MXLaxProxy), "@SMTPS@", loopback(p.SMTPSProxy), "@XCLIENT@", loopback(p.XClient),
			"@SNIPPET@", services,
		).Replace(postfixMaster),
		"recipients": recipients.String(),
		"access":     postfixAccess,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (p *Postfix) ports() []int {
	return []int{p.MXProxy, p.SubmissionProxy, p.MXLaxProxy, p.SMTPSProxy, p.MX, p.Submission, p.XClient}
}

// stop ends the master, after which its script ends by itself. A signal to the
// script would leave the master behind.
func (p *Postfix) stop() error {
	text, err := os.ReadFile(p.pidFile)
	if err != nil {
		return errors.Join(err, p.proc.stop(syscall.SIGTERM, 10*time.Second))
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop Postfix's master: %w", err)
	}
	return p.proc.await(10 * time.Second)
}

func loopback(port int) string {
	return fmt.Sprintf("127.0.0.1:%d", port)
}
