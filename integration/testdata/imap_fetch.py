"""Prints all messages of the INBOX: imap_fetch.py PORT MODE SOURCE CA LOGIN PASSWORD"""
import imaplib
import socket
import ssl
import sys

port, mode, source, ca, login, password = sys.argv[1:7]
context = ssl.create_default_context(cafile=ca)
# imaplib takes no source address.
connect = socket.create_connection
socket.create_connection = lambda address, *rest, **more: connect(address, source_address=(source, 0))
if mode == "implicit":
    server = imaplib.IMAP4_SSL("127.0.0.1", int(port), ssl_context=context)
else:
    server = imaplib.IMAP4("127.0.0.1", int(port))
    if mode == "starttls":
        server.starttls(ssl_context=context)
server.login(login, password)
server.select("INBOX", readonly=True)
for number in server.search(None, "ALL")[1][0].split():
    sys.stdout.buffer.write(server.fetch(number, "(BODY.PEEK[])")[1][0][1])
server.logout()
