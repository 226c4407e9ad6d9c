#!/bin/sh
# Installs what `make build` made, with everything that belongs to it, under
# PREFIX (/usr/local) in DESTDIR. `make install` and `make package` run it from
# the top of the source.
set -eu

prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}
[ -x mailreeve ] || { echo "make build comes first" >&2; exit 1; }
share=$root$prefix/share
doc=$share/doc/mailreeve

file() { install -D -m 0644 "$1" "$2"; }

install -D -m 0755 mailreeve "$root$prefix/bin/mailreeve"
file deploy/systemd/mailreeve.conf "$root$prefix/lib/sysusers.d/mailreeve.conf"
sed "s,/usr/local/bin/,$prefix/bin/," deploy/systemd/mailreeve.service >mailreeve.service.tmp
file mailreeve.service.tmp "$root$prefix/lib/systemd/system/mailreeve.service"
rm mailreeve.service.tmp

file deploy/package/mailreeve.8 "$share/man/man8/mailreeve.8"
gzip -nf9 "$share/man/man8/mailreeve.8"

# Debian's own packages put zsh's completion elsewhere than everybody else.
zsh=$share/zsh/site-functions
[ "$prefix" != /usr ] || zsh=$share/zsh/vendor-completions
install -d "$share/bash-completion/completions" "$zsh" "$share/fish/vendor_completions.d"
# The binary may be for another kind of machine: then HERE runs one for this.
here=${HERE:-./mailreeve}
$here completion bash >"$share/bash-completion/completions/mailreeve"
$here completion zsh >"$zsh/_mailreeve"
$here completion fish >"$share/fish/vendor_completions.d/mailreeve.fish"

for f in README.md CHANGELOG.md docs/*.md; do
    file "$f" "$doc/${f#docs/}"
done
file LICENSE "$doc/copyright"
file config.toml.example "$doc/config.toml.example"
for f in deploy/postfix/* deploy/dovecot/* deploy/prometheus/* deploy/grafana/*; do
    file "$f" "$doc/examples/${f#deploy/}"
done

config=$root/etc/mailreeve/config.toml
[ -e "$config" ] || install -D -m 0640 config.toml.example "$config"

if [ -z "$root" ] && command -v systemd-sysusers >/dev/null; then
    systemd-sysusers mailreeve.conf
    chgrp mailreeve "$config"
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
fi
