package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
)

// The peers are set up as their operators would for this job: both cores, no
// logging, the client's address passed on where they can.

const haproxyConfig = `global
  maxconn 9500
  nbthread @CORES@
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen smtp
  tcp-request connection reject if { src @BANNED@ }
  bind 127.0.0.1:@SMTP@
  server s 127.0.0.1:@B_SMTP@ send-proxy-v2
listen smtps
  tcp-request connection reject if { src @BANNED@ }
  bind 127.0.0.1:@SMTPS@ ssl crt @ECDSA@.both
  server s 127.0.0.1:@B_SMTP@ send-proxy-v2-ssl
listen imap
  tcp-request connection reject if { src @BANNED@ }
  bind 127.0.0.1:@IMAP@
  server s 127.0.0.1:@B_IMAP@ send-proxy-v2
listen imaps
  tcp-request connection reject if { src @BANNED@ }
  bind 127.0.0.1:@IMAPS@ ssl crt @ECDSA@.both
  server s 127.0.0.1:@B_IMAP@ send-proxy-v2-ssl
listen imapsrsa
  tcp-request connection reject if { src @BANNED@ }
  bind 127.0.0.1:@IMAPSRSA@ ssl crt @RSA@.both
  server s 127.0.0.1:@B_IMAP@ send-proxy-v2-ssl
`

func startHAProxy(s *setup) (*process, error) {
	if err := s.write("haproxy.cfg", haproxyConfig); err != nil {
		return nil, err
	}
	return launch(s.file("log"), exec.Command("haproxy", "-db", "-f", s.file("haproxy.cfg")))
}

const nginxMain = `daemon off;
pid @DIR@/nginx.pid;
error_log @DIR@/log crit;
worker_processes @CORES@;
worker_rlimit_nofile 20000;
events { worker_connections 20000; }
`

const nginxStreamConfig = `load_module /usr/lib/nginx/modules/ngx_stream_module.so;
` + nginxMain + `
stream {
  proxy_protocol on;
  proxy_timeout 1h;
  @DENY@
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_certificate @ECDSA@.pem;
  ssl_certificate_key @ECDSA@.key;
  server { listen 127.0.0.1:@SMTP@; proxy_pass 127.0.0.1:@B_SMTP@; }
  server { listen 127.0.0.1:@SMTPS@ ssl; proxy_pass 127.0.0.1:@B_SMTP@; }
  server { listen 127.0.0.1:@IMAP@; proxy_pass 127.0.0.1:@B_IMAP@; }
  server { listen 127.0.0.1:@IMAPS@ ssl; proxy_pass 127.0.0.1:@B_IMAP@; }
  server { listen 127.0.0.1:@IMAPSRSA@ ssl; proxy_pass 127.0.0.1:@B_IMAP@;
    ssl_certificate @RSA@.pem; ssl_certificate_key @RSA@.key; }
}
`

func startNginxStream(s *setup) (*process, error) {
	if err := s.write("nginx.conf", nginxStreamConfig); err != nil {
		return nil, err
	}
	return launch(s.file("log"), exec.Command("nginx", "-p", s.dir, "-e", s.file("log"), "-c", s.file("nginx.conf")))
}

const nginxMailConfig = `load_module /usr/lib/nginx/modules/ngx_mail_module.so;
` + nginxMain + `
mail {
  server_name mx.example.test;
  auth_http @AUTH@/@B_IMAP@/@B_SMTP@;
  proxy_protocol on;
  timeout 1h;
  proxy_timeout 1h;
  xclient off;
  smtp_auth none;
  smtp_capabilities PIPELINING "SIZE 52428800" 8BITMIME;
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_certificate @ECDSA@.pem;
  ssl_certificate_key @ECDSA@.key;
  server { listen 127.0.0.1:@SMTP@; protocol smtp; }
  server { listen 127.0.0.1:@SMTPS@ ssl; protocol smtp; }
  server { listen 127.0.0.1:@IMAP@; protocol imap; }
  server { listen 127.0.0.1:@IMAPS@ ssl; protocol imap; }
  server { listen 127.0.0.1:@IMAPSRSA@ ssl; protocol imap;
    ssl_certificate @RSA@.pem; ssl_certificate_key @RSA@.key; }
}
`

func (b *bench) startNginxMail(s *setup) (*process, error) {
	text := strings.ReplaceAll(nginxMailConfig, "@AUTH@", b.authURL)
	if err := s.write("nginx.conf", text); err != nil {
		return nil, err
	}
	return launch(s.file("log"), exec.Command("nginx", "-p", s.dir, "-e", s.file("log"), "-c", s.file("nginx.conf")))
}

// letEverybodyIn is the service that nginx's mail proxy asks about each login
// and each recipient: http://ADDRESS/IMAPPORT/SMTPPORT.
func letEverybodyIn(w http.ResponseWriter, r *http.Request) {
	ports := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	port := ports[0]
	if r.Header.Get("Auth-Protocol") == "smtp" {
		port = ports[1]
	}
	w.Header()["Auth-Status"] = []string{"OK"}
	w.Header()["Auth-Server"] = []string{"127.0.0.1"}
	w.Header()["Auth-Port"] = []string{port}
}

const dovecotConfig = `protocols = imap
base_dir = @DIR@/run
state_dir = @DIR@/state
log_path = @DIR@/log
auth_verbose = no
login_log_format_elements =
listen = 127.0.0.1
default_login_user = dovenull
default_internal_user = dovecot
ssl = yes
ssl_cert = <@ECDSA@.pem
ssl_key = <@ECDSA@.key
disable_plaintext_auth = no
auth_mechanisms = plain
passdb {
  driver = static
  args = proxy=y host=127.0.0.1 port=@B_PLAIN@ proxy_timeout=10 nopassword=y
}
service imap-login {
  service_count = 0
  process_min_avail = @CORES@
  process_limit = @CORES@
  client_limit = 19000
  vsz_limit = 2G
  inet_listener imap {
    port = @IMAP@
  }
  inet_listener imaps {
    port = @IMAPS@
    ssl = yes
  }
}
service anvil {
  client_limit = 20000
}
service auth {
  client_limit = 20000
}
`

func startDovecot(s *setup) (*process, error) {
	if err := s.write("dovecot.conf", dovecotConfig); err != nil {
		return nil, err
	}
	for _, dir := range []string{"run", "state"} {
		if err := os.MkdirAll(s.file(dir), 0o755); err != nil {
			return nil, err
		}
	}
	return launch(s.file("log"), exec.Command("dovecot", "-F", "-c", s.file("dovecot.conf")))
}

// write writes a configuration with the setup filled in.
func (s *setup) write(name, text string) error {
	banned := make([]string, bannedClients)
	for i := range banned {
		banned[i] = bannedClient(i).String()
	}
	text = strings.NewReplacer(
		"@DIR@", s.dir, "@CORES@", fmt.Sprint(s.cores),
		"@ECDSA@", s.cert(certECDSA), "@RSA@", s.cert(certRSA),
		"@SMTP@", fmt.Sprint(s.port(smtp)), "@SMTPS@", fmt.Sprint(s.port(smtps)),
		"@IMAP@", fmt.Sprint(s.port(imap)), "@IMAPS@", fmt.Sprint(s.port(imaps)),
		"@IMAPSRSA@", fmt.Sprint(s.port(imapsRSA)),
		"@B_SMTP@", fmt.Sprint(s.backend.SMTPHeader), "@B_IMAP@", fmt.Sprint(s.backend.IMAPHeader),
		"@B_PLAIN@", fmt.Sprint(s.backend.IMAP), // Dovecot's proxy has no PROXY header.
		"@BANNED@", strings.Join(banned, " "), "@DENY@", "deny "+strings.Join(banned, "; deny ")+";",
		"@METRICS@", s.metrics(), "@STORE@", s.store,
	).Replace(text)
	return os.WriteFile(s.file(name), []byte(text), 0o644)
}
