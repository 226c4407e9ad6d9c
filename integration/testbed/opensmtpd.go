package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// OpenSMTPD is a running OpenSMTPD that wants a PROXY header and knows
// alice@example.test. It takes logins behind STARTTLS only, and Debian 12's own
// cannot speak TLS: it signs in a process of its own, by a way that OpenSSL 3 has
// closed, and ends every handshake with an internal error. So it is that of
// Debian's backports.
type OpenSMTPD struct {
	*Room
	Port int
}

// "mx" is a word of its grammar, hence "server".
const opensmtpdConfig = `table users file:/etc/users
table passwords file:/etc/passwords
pki server cert "/etc/server.pem"
pki server key "/etc/server.key"
listen on 127.0.0.1 port @PORT@ hostname mx.example.test tls pki server auth-optional <passwords> proxy-v2
action "local" mda "cat >/dev/null" virtual <users>
match from any for domain "example.test" action "local"
`

// It looks each client's name up before it greets, and would ask whom the
// machine asks for names. smtpctl encrypts for its own group only.
const opensmtpdScript = `
for n in 1 2; do
  user=$(echo opensmtpd opensmtpq | cut -d' ' -f$n)
  echo $user:x:91$n:91$n::/var/lib/opensmtpd/empty:/bin/false >> /etc/passwd
  echo $user:x:91$n: >> /etc/group
done
mkdir -p /var/lib/opensmtpd/empty /var/spool/smtpd
chmod 711 /var/spool/smtpd
echo 'lookup file' > /etc/resolv.conf
chgrp opensmtpq /usr/sbin/smtpctl
chmod g+s /usr/sbin/smtpctl
echo '@LOGIN@: root' > /etc/users
echo "@LOGIN@ $(smtpctl encrypt '@PASSWORD@')" > /etc/passwords
chown opensmtpd /etc/passwords
chmod 600 /etc/passwords
cp @DIR@/smtpd.conf /etc/smtpd.conf
install -m 600 @DIR@/server.pem @DIR@/server.key /etc/
exec smtpd -d -f /etc/smtpd.conf
`

// NewOpenSMTPD starts an OpenSMTPD for one test.
func (b *Bed) NewOpenSMTPD(t testing.TB) *OpenSMTPD {
	t.Helper()
	o := &OpenSMTPD{Port: FreePort(t)}
	issued := filepath.Join(b.TempDir(t), "server")
	if err := b.CA.Issue(issued, "mx.example.test"); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"smtpd.conf": strings.ReplaceAll(opensmtpdConfig, "@PORT@", fmt.Sprint(o.Port))}
	for _, ext := range []string{".pem", ".key"} {
		text, err := os.ReadFile(issued + ext)
		if err != nil {
			t.Fatal(err)
		}
		files["server"+ext] = string(text)
	}
	script := strings.NewReplacer("@LOGIN@", b.Alice.Login, "@PASSWORD@", b.Alice.Password).Replace(opensmtpdScript)
	o.Room = b.newRoom(t, []string{"opensmtpd/bookworm-backports"}, script, files)
	o.await(t, o.Port)
	return o
}
