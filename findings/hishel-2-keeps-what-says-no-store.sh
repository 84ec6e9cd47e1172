#!/usr/bin/env bash
# hishel 2 keeps answers that say `no-store`, and serves them to requests that say
# `no-cache`; hishel 1 did not.
#
# The guess: a cache "for HTTPX and Requests" whose releases 0 and 1 followed RFC 9111
# unasked follows it in release 2 too, so an upgrade changes speed and storage at most.
#
# What happens: in release 2 RFC 9111 is an option (rfc=True) that is off. Without it every
# successful GET is kept by method and address alone, without an expiry. The line that made
# a client in release 1 runs in release 2 as it stands, without a warning.
#
# Seen with hishel 1.4.0 and 2.0.0 behind Requests, the same program; answers of the server
# are numbered, and each is `Cache-Control: private, no-store`:
#
#                                          1.4.0   2.0.0   2.0.0, rfc=True
#     first question                       1       1       1
#     the same again                       2       1       2
#     with Cache-Control: no-cache         3       1       3
#
# For a service: a client that upgrades goes on with the first answer for ever, whatever
# the service says of it, and cannot ask for a newer one. Its users must add rfc=True.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
install() {
    "$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check "$@"
}
cd "$room"
cat >see.py <<'PYTHON'
import http.server, itertools, json, sys, threading

import hishel.requests, requests

number = itertools.count(1)


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = str(next(number)).encode()
        self.send_response(200)
        self.send_header("Cache-Control", "private, no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
threading.Thread(target=server.serve_forever, daemon=True).start()
options = json.loads(sys.argv[1])
session = requests.Session()
session.mount("http://", hishel.requests.CacheAdapter(**options))
questions = [{}, {}, {"Cache-Control": "no-cache"}]
url = f"http://127.0.0.1:{server.server_port}/"
print(*(session.get(url, headers=headers).text for headers in questions))
PYTHON
ask() { # OPTIONS: in a new folder, because hishel keeps its answers in a file there
    rm -rf here
    mkdir here
    (cd here && "$room/venv/bin/python" "$room/see.py" "$1" 2>errors || cat errors)
}
install requests==2.34.2 hishel==2.0.0
new=$(ask '{}')
rfc=$(ask '{"rfc": true}')
install hishel==1.4.0
old=$(ask '{}')
printf '%-16s %s\n' 1.4.0 "$old" 2.0.0 "$new" '2.0.0 rfc=True' "$rfc"
if [[ "$old/$new/$rfc" != "1 2 3/1 1 1/1 2 3" ]]; then
    echo "CHANGED: hishel keeps other answers" >&2
    exit 1
fi
