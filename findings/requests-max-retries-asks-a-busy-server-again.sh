#!/usr/bin/env bash
# HTTPAdapter(max_retries=1) asks again where the question had reached the server, and
# sleeps for as long as a 503 says.
#
# The guess, from the adapter's own docstring in requests: a plain number is about
# connections that could not be made, "never to requests where data has made it to the
# server", and the timeout bounds what a call can take.
#
# What happens: the number becomes a Retry of urllib3 with everything that has by default.
# A GET that the server took and then hung up on is sent a second time. A 503 (or 429 or
# 413) with Retry-After is waited for, outside any timeout and up to six hours, and asked
# again; a 503 without the header is not. A POST is left alone, and so is a session whose
# max_retries has its default.
#
# Seen with requests 2.34.2 and urllib3 2.8.0 (times rounded down to whole seconds):
#
#                                          as it comes     max_retries=1
#     GET, server hangs up                 1 asked in 0 s  2 asked in 0 s
#     GET, 503                             1 asked in 0 s  1 asked in 0 s
#     GET, 503 and Retry-After: 2          1 asked in 0 s  2 asked in 2 s
#     POST, 503 and Retry-After: 2         1 asked in 0 s  1 asked in 0 s
#
# The timeout was 0.5 s throughout. For a service: "one more try to connect" can hold a
# worker for hours and doubles the load of a busy upstream. Pass
# Retry(connect=1, read=0, status=0, respect_retry_after_header=False) instead.
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

import requests
from requests.adapters import HTTPAdapter

asked = []


class Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked.append(self.path)
        if self.path == "/hang-up":
            self.close_connection = True
            return
        self.send_response(503)
        if self.path == "/busy":
            self.send_header("Retry-After", "2")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *args):
        pass


def tried(method, path, **adapter):
    asked.clear()
    with requests.Session() as session:
        session.trust_env = False
        if adapter:
            session.mount("http://", HTTPAdapter(**adapter))
        began = time.monotonic()
        try:
            session.request(method, address + path, timeout=0.5)
        except requests.ConnectionError:
            pass
    return len(asked), int(time.monotonic() - began)


server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"
CASES = {
    "GET, server hangs up": ("GET", "/hang-up", (2, 0)),
    "GET, 503": ("GET", "/plain", (1, 0)),
    "GET, 503 and Retry-After: 2": ("GET", "/busy", (2, 2)),
    "POST, 503 and Retry-After: 2": ("POST", "/busy", (1, 0)),
}
same = True
print(f"{'':35}  as it comes     max_retries=1")
for name, (method, path, wanted) in CASES.items():
    plain, more = tried(method, path), tried(method, path, max_retries=1)
    counted = ["{} asked in {} s".format(*one) for one in (plain, more)]
    print(f"{name:35}", *counted, sep="  ")
    same = same and plain == (1, 0) and more == wanted
if not same:
    sys.exit("CHANGED: requests tries again in other cases")
PYTHON
venv/bin/python see.py
