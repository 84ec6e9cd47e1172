#!/usr/bin/env bash
# Under granian, what is left of a request body after readline() is lost to read().
#
# The guess: wsgi.input is read like a file, so a program that takes the first line (the
# names of the columns of a CSV, say) with readline() gets the rest with read() or
# readlines(). PEP 3333 asks for these three and for iteration.
#
# What happens: after one readline(), read() gives b"" and readlines() gives [], as if the
# body had ended. The rest is there, for readline() and iteration alone. Mixed the other
# way round, after read(n), readlines() is empty, too, and iteration goes on. No error.
#
# Seen with granian 2.8.9, of a body of three lines, beside a plain file of the same bytes:
#
#     readline, read       file    (b'name,age\n', b'ada,36\nbob,41\n')
#                          granian (b'name,age\n', b'')
#     readline, readlines  file    (b'name,age\n', [b'ada,36\n', b'bob,41\n'])
#                          granian (b'name,age\n', [])
#     readline, iteration  file    (b'name,age\n', [b'ada,36\n', b'bob,41\n'])
#                          granian (b'name,age\n', [b'ada,36\n', b'bob,41\n'])
#     read(9), readlines   file    (b'name,age\n', [b'ada,36\n', b'bob,41\n'])
#                          granian (b'name,age\n', [])
#     read(9), iteration   file    (b'name,age\n', [b'ada,36\n', b'bob,41\n'])
#                          granian (b'name,age\n', [b'ada,36\n', b'bob,41\n'])
#
# For a service: an upload loses its rows and is answered as a success. Read the body
# whole (io.BytesIO(environ["wsgi.input"].read())), or in one of the two ways only.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check granian==2.8.9
cd "$room"
cat >rows.py <<'PYTHON'
WAYS = {
    "readline, read": lambda body: (body.readline(), body.read()),
    "readline, readlines": lambda body: (body.readline(), body.readlines()),
    "readline, iteration": lambda body: (body.readline(), list(body)),
    "read(9), readlines": lambda body: (body.read(9), body.readlines()),
    "read(9), iteration": lambda body: (body.read(9), list(body)),
}


def app(environ, start_response):
    way = list(WAYS.values())[int(environ["PATH_INFO"].strip("/"))]
    seen = repr(way(environ["wsgi.input"])).encode()
    start_response("200 OK", [("Content-Length", str(len(seen)))])
    return [seen]
PYTHON
cat >see.py <<'PYTHON'
import ast, http.client, io, socket, subprocess, sys, time

from rows import WAYS

BODY = b"name,age\nada,36\nbob,41\n"
FIRST, REST = b"name,age\n", [b"ada,36\n", b"bob,41\n"]

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
command = ["venv/bin/granian", "--interface", "wsgi", "--no-ws", "--no-log"]
place = ["--host", "127.0.0.1", "--port", str(port)]
granian = subprocess.Popen([*command, *place, "rows:app"])


def ask(number):
    for _ in range(200):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("POST", f"/{number}", BODY)
            return ast.literal_eval(connection.getresponse().read().decode())
        except ConnectionRefusedError:
            time.sleep(0.05)
    sys.exit("granian did not come up")


try:
    seen = {name: ask(number) for number, name in enumerate(WAYS)}
finally:
    granian.terminate()
    granian.wait()
for name, way in WAYS.items():
    print(f"{name:20} file    {way(io.BytesIO(BODY))}")
    print(f"{'':20} granian {seen[name]}")
wanted = [(FIRST, b""), (FIRST, []), (FIRST, REST), (FIRST, []), (FIRST, REST)]
if list(seen.values()) != wanted:
    sys.exit("CHANGED: granian's body reads otherwise after a first line")
PYTHON
venv/bin/python see.py
