package testbed

import (
	"fmt"
	"strings"
	"testing"
)

// OpenSMTPD is a running OpenSMTPD that wants a PROXY header and knows
// alice@example.test. It takes logins over TLS only, and Debian 12's cannot
// speak TLS: it signs in a process of its own, by a way that OpenSSL 3 has
// closed, and ends every handshake with an internal error.
type OpenSMTPD struct {
	*Room
	Port int
}

const opensmtpdConfig = `table users file:/etc/users
listen on 127.0.0.1 port @PORT@ hostname mx.example.test proxy-v2
action "local" mda "cat >/dev/null" virtual <users>
match from any for domain "example.test" action "local"
`

const opensmtpdScript = `
for n in 1 2; do
  user=$(echo opensmtpd opensmtpq | cut -d' ' -f$n)
  echo $user:x:91$n:91$n::/var/lib/opensmtpd/empty:/bin/false >> /etc/passwd
  echo $user:x:91$n: >> /etc/group
done
mkdir -p /var/lib/opensmtpd/empty /var/spool/smtpd
chmod 711 /var/spool/smtpd
echo 'alice@example.test: root' > /etc/users
cp @DIR@/smtpd.conf /etc/smtpd.conf
exec smtpd -d -f /etc/smtpd.conf
`

// NewOpenSMTPD starts an OpenSMTPD for one test.
func (b *Bed) NewOpenSMTPD(t testing.TB) *OpenSMTPD {
	t.Helper()
	o := &OpenSMTPD{Port: FreePort(t)}
	o.Room = b.newRoom(t, []string{"opensmtpd"}, opensmtpdScript, map[string]string{
		"smtpd.conf": strings.ReplaceAll(opensmtpdConfig, "@PORT@", fmt.Sprint(o.Port)),
	})
	o.await(t, o.Port)
	return o
}
