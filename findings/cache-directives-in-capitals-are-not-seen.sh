#!/usr/bin/env bash
# Werkzeug and CacheControl overlook a Cache-Control directive that is written in capitals.
#
# The guess: directives are compared without regard to case (RFC 9111, 5.2), so Max-Age=60
# is max-age=60, as it is to nginx and to requests-cache.
#
# What happens: werkzeug parses Max-Age and keeps it under the name as it was written, which
# its attribute does not look for: request.cache_control.max_age is None. CacheControl, the
# cache for requests, ignores it as unknown (a line at debug says so) and stores nothing.
#
# Seen with werkzeug 3.1.9, CacheControl 0.14.4 and requests-cache 1.3.3 (requests 2.34.2):
#
#                 werkzeug: max_age   questions for two GETs, by
#                                     CacheControl  requests-cache
#     max-age=60  60                  1             1
#     Max-Age=60  None                2             1
#
# For a service: what callers or an upstream write in another case is not heeded.
# Lower the names before you ask, and write them in lower case.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check \
    werkzeug==3.1.9 cachecontrol==0.14.4 requests-cache==1.3.3 requests==2.34.2
cd "$room"
cat >see.py <<'PYTHON'
import sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests
from cachecontrol import CacheControl
from requests_cache import CachedSession
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

asked, said = [], ""


class Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked.append(self.path)
        self.send_response(200)
        self.send_header("Cache-Control", said)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args):
        pass


def questions(session):
    asked.clear()
    session.trust_env = False
    with session:
        for _ in range(2):
            session.get(f"http://127.0.0.1:{server.server_port}/", timeout=10)
    return len(asked)


server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
threading.Thread(target=server.serve_forever, daemon=True).start()
WANTED = {
    "max-age=60": (60, 1, 1),
    "Max-Age=60": (None, 2, 1),
}
seen = {}
print(f"{'':11} werkzeug: max_age   questions for two GETs, by")
print(f"{'':31} CacheControl  requests-cache")
for said in WANTED:
    headers = {"Cache-Control": said}
    heard = Request(EnvironBuilder(headers=headers).get_environ()).cache_control
    one = questions(CacheControl(requests.Session()))
    other = questions(CachedSession(backend="memory", cache_control=True))
    seen[said] = heard.max_age, one, other
    print(f"{said:11} {heard.max_age!s:19} {one:<13} {other}")
if seen != WANTED:
    sys.exit("CHANGED: directives in capitals are read otherwise")
PYTHON
venv/bin/python see.py
