#!/bin/sh
# Lays out what is in the image. Whoever it runs as may write to its two
# directories: nobody else is in there.
set -eu

image=dist/image
rm -rf $image
install -D -m 0755 mailreeve $image/usr/local/bin/mailreeve
install -D -m 0644 /etc/ssl/certs/ca-certificates.crt $image/etc/ssl/certs/ca-certificates.crt
install -d -m 0777 $image/run/mailreeve $image/var/lib/mailreeve
