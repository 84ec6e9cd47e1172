#!/usr/bin/env bash
# requests reads the whole body of a redirect before it returns the response, despite
# stream=True and allow_redirects=False.
#
# The guess: with stream=True a call returns with the head, and the body waits until it is
# read; with allow_redirects=False a 302 is an answer like any other.
#
# What happens: told not to follow, requests still prepares the next request (for
# response.next), and for that it reads the body to its end. Of a redirect that drips, the
# head is in the caller's hands only when the last byte is, and the body is in memory,
# however long. The timeout does not end it, because it bounds each single read. urllib3, asked
# for the same by itself, returns with the head.
#
# Seen with requests 2.34.2 and urllib3 2.8.0, of 6 bytes in 1.5 s, the timeout being 1 s:
#
#     requests, 200  head at once           body read already: False
#     requests, 302  head after the body    body read already: True
#     urllib3,  302  head at once
#
# For a service: a limit on the size or the time of an upstream's answer, put on the
# reading of a streamed body, does not hold for redirects. A Session whose
# get_redirect_target returns None has no redirects, and the limit holds.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check \
    requests==2.34.2 urllib3==2.8.0
cd "$room"
cat >see.py <<'PYTHON'
import sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests, urllib3


class Dripping(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(302 if self.path == "/redirect" else 200)
        if self.path == "/redirect":
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "6")
        self.end_headers()
        for _ in range(6):
            time.sleep(0.25)
            self.wfile.write(b".")

    def log_message(self, *args):
        pass


def timed(ask):
    began = time.monotonic()
    answer = ask()
    late = time.monotonic() - began > 1.2
    return answer, "head after the body" if late else "head at once"


server = ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"
session = requests.Session()
session.trust_env = False
told = {"stream": True, "allow_redirects": False, "timeout": 1}
seen = []
for path in ("/plain", "/redirect"):
    answer, when = timed(lambda: session.get(address + path, **told))
    read = answer._content is not False
    seen.append((answer.status_code, when, read))
    print(f"requests, {answer.status_code}  {when:22} body read already: {read}")
    assert answer.content == b"......"
pool = urllib3.PoolManager()
answer, when = timed(
    lambda: pool.request(
        "GET", address + "/redirect", redirect=False, preload_content=False, timeout=1
    )
)
print(f"urllib3,  {answer.status}  {when}")
seen.append((answer.status, when))
answer.read()
if seen != [
    (200, "head at once", False),
    (302, "head after the body", True),
    (302, "head at once"),
]:
    sys.exit("CHANGED: requests no longer reads a redirect that it does not follow")
PYTHON
venv/bin/python see.py
