"""Sends standard input as a message: smtp_send.py PORT MODE SOURCE CA FROM TO [LOGIN PASSWORD]"""
import smtplib
import ssl
import sys

port, mode, source, ca, sender, recipient = sys.argv[1:7]
context = ssl.create_default_context(cafile=ca)
options = {"source_address": (source, 0), "timeout": 60}
if mode == "implicit":
    server = smtplib.SMTP_SSL("127.0.0.1", int(port), context=context, **options)
else:
    server = smtplib.SMTP("127.0.0.1", int(port), **options)
    if mode == "starttls":
        server.starttls(context=context)
if len(sys.argv) > 7:
    server.login(*sys.argv[7:9])
server.sendmail(sender, [recipient], sys.stdin.buffer.read())
server.quit()
