#!/usr/bin/env bash
# A WSGI application that is a generator function answers 200 under granian, whatever
# it says.
#
# The guess: PEP 3333 lets an application call start_response as late as when its first
# piece is asked for, so one that begins with it and then yields is served like any other.
#
# What happens: granian takes status and headers as soon as the call returns. A generator
# has not begun by then, so the status is the 200 that granian starts from, and there are
# no headers of the application's. The body comes whole. Nothing is logged.
#
# Seen with granian 2.8.9 beside wsgiref, the reference server of Python 3.11:
#
#     wsgiref  404 x-why='nobody of that name' type='text/plain' body=b'nobody\n'
#     granian  200 x-why=None type=None body=b'nobody\n'
#
# For a service: under granian a refusal from such an application or middleware is taken,
# and cached, as success. Call start_response before returning the iterable.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check granian==2.8.9
cd "$room"
cat >late.py <<'PYTHON'
def app(environ, start_response):
    start_response(
        "404 Not Found",
        [("Content-Type", "text/plain"), ("X-Why", "nobody of that name")],
    )
    yield b"nobody\n"
PYTHON
cat >see.py <<'PYTHON'
import http.client, socket, subprocess, sys, threading, time
from wsgiref.simple_server import WSGIRequestHandler, make_server

from late import app


class Silent(WSGIRequestHandler):
    def log_message(self, *args):
        pass


def ask(port):
    for _ in range(200):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/")
            answer = connection.getresponse()
        except ConnectionRefusedError:
            time.sleep(0.05)
            continue
        seen = answer.status, answer.getheader("X-Why"), answer.getheader("Content-Type")
        return *seen, answer.read()
    sys.exit("the server did not come up")


def show(server, seen):
    status, why, kind, body = seen
    print(f"{server}  {status} x-why={why!r} type={kind!r} body={body!r}")


reference = make_server("127.0.0.1", 0, app, handler_class=Silent)
threading.Thread(target=reference.handle_request).start()
by_the_book = ask(reference.server_port)
reference.server_close()

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
command = ["venv/bin/granian", "--interface", "wsgi", "--no-ws", "--no-log"]
place = ["--host", "127.0.0.1", "--port", str(port)]
granian = subprocess.Popen([*command, *place, "late:app"])
try:
    by_granian = ask(port)
finally:
    granian.terminate()
    granian.wait()

show("wsgiref", by_the_book)
show("granian", by_granian)
assert by_the_book == (404, "nobody of that name", "text/plain", b"nobody\n")
if by_granian != (200, None, None, b"nobody\n"):
    sys.exit("CHANGED: granian no longer answers a generator's 404 with a bare 200")
PYTHON
venv/bin/python see.py
