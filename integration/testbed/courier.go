package testbed

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// Courier is a running Courier: IMAP, POP3 and ESMTP, which log in b.Alice and
// know alice@example.test. None of them knows the PROXY protocol.
type Courier struct {
	*Room
	IMAP, POP3, SMTP int
}

// courierScript starts the three as Courier's own scripts do. Where its
// libraries look for authdaemond is fixed, so that place leads to Dir.
// authdaemond must not be the room's first process: it ends when a child ends
// that it does not know, and the first process inherits all that are orphaned.
const courierScript = `
echo courier:x:930:930::/:/bin/false >> /etc/passwd
echo courier:x:930: >> /etc/group
mkdir -p /run/courier @DIR@/auth /home2/alice
ln -s @DIR@/auth /run/courier/authdaemon
ln -s /usr/lib/courier/makedat /usr/bin/makedat
maildirmake.courier /home2/alice/Maildir
chown -R courier:courier /home2 @DIR@/auth
sed -i 's/^authmodulelist=.*/authmodulelist="authuserdb"/' /etc/courier/authdaemonrc
(umask 077; printf 'alice@example.test\tuid=930|gid=930|home=/home2/alice|systempw=%s\n' '@HASH@' > /etc/courier/userdb; makeuserdb)
echo mx.example.test > /etc/courier/me
echo mx.example.test > /etc/courier/locals
echo example.test > /etc/courier/hosteddomains/ours
echo example.test > /etc/courier/esmtpacceptmailfor.dir/ours
makehosteddomains; makeacceptmailfor; makealiases; makesmtpaccess
chown -R courier:courier /var/lib/courier /etc/courier
listen="/usr/sbin/couriertcpd -address=127.0.0.1 -maxprocs=100 -maxperip=100 -nodnslookup -noidentlookup"
lib=/usr/lib/courier/courier
(set -a; . /etc/courier/imapd; IMAP_TLS_REQUIRED=0 IMAP_CAPABILITY="$IMAP_CAPABILITY AUTH=PLAIN"
 exec $listen @IMAP@ $lib/imaplogin /usr/bin/imapd Maildir) &
(set -a; . /etc/courier/pop3d; POP3AUTH=PLAIN
 exec $listen @POP3@ $lib/courierpop3login $lib/courierpop3d Maildir) &
(set -a; . /etc/courier/esmtpd; BOFHCHECKDNS=0 TARPIT=0 ESMTPAUTH="PLAIN LOGIN"
 exec $listen -user=courier -group=courier @SMTP@ /usr/sbin/courieresmtpd) &
set -a
. /etc/courier/authdaemonrc
/usr/lib/courier/courier-authlib/authdaemond
exit
`

// NewCourier starts a Courier for one test. It asks for passwords at the
// socket "auth/socket" in its Dir, and is out of order without.
func (b *Bed) NewCourier(t testing.TB) *Courier {
	t.Helper()
	ports, err := freePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := exec.Command("openssl", "passwd", "-1", b.Alice.Password).Output()
	if err != nil {
		t.Fatalf("openssl passwd: %v", err)
	}
	c := &Courier{IMAP: ports[0], POP3: ports[1], SMTP: ports[2]}
	script := strings.NewReplacer("@IMAP@", fmt.Sprint(c.IMAP), "@POP3@", fmt.Sprint(c.POP3),
		"@SMTP@", fmt.Sprint(c.SMTP), "@HASH@", strings.TrimSpace(string(hash))).Replace(courierScript)
	c.Room = b.newRoom(t, []string{"courier-imap", "courier-pop", "courier-mta"}, script, map[string]string{})
	c.await(t, ports...)
	Eventually(t, "authdaemond's socket", func() bool { return exists(c.Dir + "/auth/socket") })
	return c
}
