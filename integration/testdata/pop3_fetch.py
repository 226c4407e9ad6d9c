"""Prints all messages of a mailbox: pop3_fetch.py PORT SOURCE CA LOGIN PASSWORD"""
import poplib
import socket
import ssl
import sys

port, source, ca, login, password = sys.argv[1:6]
connect = socket.create_connection
socket.create_connection = lambda address, *rest, **more: connect(address, source_address=(source, 0))
server = poplib.POP3("127.0.0.1", int(port))
server.stls(context=ssl.create_default_context(cafile=ca))
server.user(login)
server.pass_(password)
for number in range(1, server.stat()[0] + 1):
    sys.stdout.buffer.write(b"\r\n".join(server.retr(number)[1]) + b"\r\n")
server.quit()
