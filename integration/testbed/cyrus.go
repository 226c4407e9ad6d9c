package testbed

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Cyrus is a running Cyrus IMAP, which logs in b.Alice. Debian 12's does not
// know the PROXY protocol.
type Cyrus struct {
	*Room
	IMAP, POP3, Sieve int
}

// cyrusConfig logs in by saslauthd's socket, which we answer ourselves. The
// pause after a failure is Cyrus's own business.
const cyrusConfig = `configdirectory: /var/lib/cyrus
proc_path: /run/cyrus/proc
mboxname_lockpath: /run/cyrus/lock
defaultpartition: default
partition-default: /var/spool/cyrus/mail
sievedir: /var/spool/sieve
virtdomains: userid
defaultdomain: example.test
unixhierarchysep: yes
altnamespace: yes
autocreate_quota: -1
allowplaintext: yes
sasl_pwcheck_method: saslauthd
sasl_mech_list: PLAIN LOGIN
sasl_saslauthd_path: @DIR@/mux
failedloginpause: 0
popminpoll: 0
servername: imap.example.test
`

const cyrusServices = `START {
  recover cmd="/usr/lib/cyrus/bin/ctl_cyrusdb -r"
}
SERVICES {
  imap cmd="/usr/lib/cyrus/bin/imapd" listen="127.0.0.1:@IMAP@" prefork=1
  pop3 cmd="/usr/lib/cyrus/bin/pop3d" listen="127.0.0.1:@POP3@" prefork=1
  sieve cmd="/usr/lib/cyrus/bin/timsieved" listen="127.0.0.1:@SIEVE@" prefork=1
}
`

const cyrusScript = `
echo cyrus:x:920:920::/var/lib/cyrus:/bin/false >> /etc/passwd
echo cyrus:x:920: >> /etc/group
cp @DIR@/imapd.conf @DIR@/cyrus.conf /etc/
for dir in db user proc socket log msg quota ptclient sync lock sieve; do mkdir -p /var/lib/cyrus/$dir; done
mkdir -p /run/cyrus/proc /run/cyrus/lock /run/cyrus/socket /var/spool/cyrus/mail /var/spool/sieve
chown -R cyrus:cyrus /run/cyrus /var/lib/cyrus /var/spool/cyrus /var/spool/sieve
exec /usr/lib/cyrus/bin/master -D -p /run/cyrus.pid -C /etc/imapd.conf -M /etc/cyrus.conf
`

// NewCyrus starts a Cyrus for one test. It asks for passwords at the socket
// "mux" in its Dir, and is out of order without.
func (b *Bed) NewCyrus(t testing.TB) *Cyrus {
	t.Helper()
	ports, err := freePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cyrus{IMAP: ports[0], POP3: ports[1], Sieve: ports[2]}
	c.Room = b.newRoom(t, []string{"cyrus-imapd", "cyrus-pop3d"}, cyrusScript, map[string]string{
		"imapd.conf": cyrusConfig,
		"cyrus.conf": strings.NewReplacer("@IMAP@", fmt.Sprint(c.IMAP), "@POP3@", fmt.Sprint(c.POP3),
			"@SIEVE@", fmt.Sprint(c.Sieve)).Replace(cyrusServices),
	})
	answerSASL(t, filepath.Join(c.Dir, "mux"), b.Alice)
	c.await(t, ports...)
	return c
}

// answerSASL is saslauthd for one user.
func answerSASL(t testing.TB, path string, user User) {
	t.Helper()
	socket, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	// The test takes the name away to stop the service for a while.
	socket.(*net.UnixListener).SetUnlinkOnClose(false)
	t.Cleanup(func() { socket.Close() })
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	go serveSASL(socket, user)
}

func serveSASL(socket net.Listener, user User) {
	for {
		conn, err := socket.Accept()
		if err != nil {
			return
		}
		answer := "NO"
		if login, password, realm, err := readSASL(bufio.NewReader(conn)); err == nil {
			// Cyrus strips its default domain, or hands it as the realm.
			whole := login
			if realm != "" {
				whole += "@" + realm
			}
			local, _, _ := strings.Cut(user.Login, "@")
			if (whole == user.Login || whole == local) && password == user.Password {
				answer = "OK"
			}
		}
		conn.Write(append([]byte{0, byte(len(answer))}, answer...))
		conn.Close()
	}
}

// readSASL reads what saslauthd is asked: four strings, each behind its length.
func readSASL(r io.Reader) (login, password, realm string, err error) {
	var fields [4]string // the third is the service's name
	for i := range fields {
		var size [2]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return "", "", "", err
		}
		text := make([]byte, int(size[0])<<8|int(size[1]))
		if _, err := io.ReadFull(r, text); err != nil {
			return "", "", "", err
		}
		fields[i] = string(text)
	}
	return fields[0], fields[1], fields[3], nil
}
