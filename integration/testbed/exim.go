package testbed

import (
	"fmt"
	"strings"
	"testing"
)

// Exim is a running Exim that wants a PROXY header. It logs in b.Alice, knows
// alice@example.test, refuses gone@example.test by a router of its own, and
// greylists greylisted@example.test.
type Exim struct {
	*Room
	Port int
}

// eximConfig follows Debian's for what it answers.
const eximConfig = `primary_hostname = mx.example.test
local_interfaces = <; [127.0.0.1]:@PORT@
daemon_smtp_ports = @PORT@
hosts_proxy = 127.0.0.1
log_file_path = @DIR@/spool/%slog
spool_directory = @DIR@/spool
host_lookup =
rfc1413_hosts =
keep_environment =
tls_advertise_hosts =
never_users =
domainlist ours = example.test
acl_smtp_rcpt = acl_rcpt
acl_smtp_data = accept
begin acl
acl_rcpt:
  defer local_parts = greylisted
    message = Greylisted, please try again later
  accept authenticated = *
  require message = relay not permitted
    domains = +ours
  require verify = recipient
  accept
begin routers
known:
  driver = accept
  local_parts = alice
  transport = file
refused:
  driver = redirect
  local_parts = gone
  allow_fail
  data = :fail: Unknown user
begin transports
file:
  driver = appendfile
  file = @DIR@/spool/mail
begin retry
* * F,2h,15m
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = @PLAIN@
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = <| Username: | Password:
  server_condition = @LOGIN@
  server_set_id = $auth1
`

// eximCondition asks a file for the password, unless the file is gone.
const eximCondition = `${if exists{@DIR@/passwords}{${if eq{@PASSWORD@}{${lookup{@LOGIN@}lsearch{@DIR@/passwords}{$value}fail}}}}{defer: no database}}`

const eximScript = `
echo Debian-exim:x:901:901::/:/bin/false >> /etc/passwd
echo Debian-exim:x:901: >> /etc/group
mkdir -p @DIR@/spool /etc/exim4
chown Debian-exim @DIR@/spool
cp @DIR@/exim4.conf /etc/exim4/exim4.conf
exec exim4 -bdf
`

// NewExim starts an Exim for one test. It looks passwords up in the file
// "passwords" of its Dir, and is out of order without.
func (b *Bed) NewExim(t testing.TB) *Exim {
	t.Helper()
	e := &Exim{Port: FreePort(t)}
	condition := func(login, password string) string {
		return strings.NewReplacer("@LOGIN@", login, "@PASSWORD@", password).Replace(eximCondition)
	}
	e.Room = b.newRoom(t, []string{"exim4-daemon-heavy"}, eximScript, map[string]string{
		"exim4.conf": strings.NewReplacer("@PORT@", fmt.Sprint(e.Port),
			"@PLAIN@", condition("$auth2", "$auth3"), "@LOGIN@", condition("$auth1", "$auth2"),
		).Replace(eximConfig),
		"passwords": fmt.Sprintf("%s: %s\n", b.Alice.Login, b.Alice.Password),
	})
	e.await(t, e.Port)
	return e
}
