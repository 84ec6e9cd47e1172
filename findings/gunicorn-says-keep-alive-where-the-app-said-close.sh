#!/usr/bin/env bash
# An application that answers Connection: close is obeyed by granian; gunicorn drops the
# header, sends keep-alive in its place, and keeps the connection.
#
# The guess: what an application answers under one WSGI server it answers under another.
# Connection is the server's to send (PEP 3333 keeps it from applications), so a server
# that does not want it would raise.
#
# What happens: the same application does opposite things, and neither server says a word.
#
# Seen with gunicorn 27.0.1 (gthread) and granian 2.8.9, two questions on one connection:
#
#     granian   connection: close       second answer: none, closed
#     gunicorn  connection: keep-alive  second answer: 200
#
# For a service that empties its keep-alive connections before it stops: under gunicorn
# the application cannot, and a balancer goes on sending until the socket is closed.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check \
    granian==2.8.9 gunicorn==27.0.1
cd "$room"
cat >leaving.py <<'PYTHON'
def app(environ, start_response):
    start_response("200 OK", [("Connection", "close"), ("Content-Length", "4")])
    return [b"bye\n"]
PYTHON
cat >see.py <<'PYTHON'
import http.client, socket, subprocess, sys, time


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def head(received):
    return received.partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")


def answers(command, port):
    log = open("log", "wb")
    server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(200):
            try:
                sock = socket.create_connection(("127.0.0.1", int(port)), timeout=10)
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        else:
            sys.exit("the server did not come up")
        found = []
        for _ in range(2):
            received = b""
            try:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
                while not received.endswith(b"bye\n") and (more := sock.recv(9999)):
                    received += more
            except (BrokenPipeError, ConnectionResetError):
                pass
            found.append(head(received))
        sock.close()
    finally:
        server.terminate()
        server.wait()
        log.close()
    said = [line for line in found[0] if line.startswith("connection:")]
    second = found[1][0].split()[1] if found[1][0] else "none, closed"
    return said[0] if said else "no such header", second


one, other = free_port(), free_port()
granian = ["venv/bin/granian", "--interface", "wsgi", "--no-ws", "--host", "127.0.0.1"]
seen = {
    "granian": answers([*granian, "--port", one, "leaving:app"], one),
    "gunicorn": answers(
        ["venv/bin/gunicorn", "-k", "gthread", "-b", f"127.0.0.1:{other}", "leaving:app"],
        other,
    ),
}
for name, (said, second) in seen.items():
    print(f"{name:9} {said:23} second answer: {second}")
if seen != {
    "granian": ("connection: close", "none, closed"),
    "gunicorn": ("connection: keep-alive", "200"),
}:
    sys.exit("CHANGED: a server treats an application's Connection: close otherwise")
PYTHON
venv/bin/python see.py
