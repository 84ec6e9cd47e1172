#!/usr/bin/env bash
# nginx's proxy_cache ignores Age for freshness, and sends the upstream's Age unchanged for
# as long as it keeps the response.
#
# The guess: behind another cache, an answer of max-age=60 that comes with Age: 58 has two
# seconds left (RFC 9111, 4.2.3), and what nginx serves from its own cache says how old it
# is by then.
#
# What happens: nginx counts max-age from the moment it got the answer, even where Age is
# past it already and the answer was stale when it came. The Age header is stored with the
# rest and sent as it is, beside a Date that nginx writes anew. So the next cache or
# client takes an old response for a younger one. Without a cache behind nginx there is no Age at all.
#
# Seen with nginx 1.22.1 (Debian 12) and two answers of max-age=60, asked for at once and
# after two seconds:
#
#     nginx/1.22.1
#     /nearly-stale  at once: MISS, answer 1, Age 58   later: HIT, answer 1, Age 58
#     /stale         at once: MISS, answer 1, Age 90   later: HIT, answer 1, Age 90
#     /no-age        at once: MISS, answer 1, Age None  later: HIT, answer 1, Age None
#
# For a service that answers with max-age and Age: each nginx in front of it adds a whole
# max-age to how old an answer can get. Tell nginx with X-Accel-Expires, which it prefers,
# how many seconds are left.
set -euo pipefail
nginx=$(PATH=$PATH:/usr/sbin command -v nginx) || {
    echo "nginx is missing: apt-get install nginx-light" >&2
    exit 2
}
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
chmod 755 "$room" # nginx's worker may be another user.
cd "$room"
cat >see.py <<'PYTHON'
import http.client, re, socket, subprocess, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

asked, ages = {}, {"/nearly-stale": 58, "/stale": 90, "/no-age": None}


class Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked[self.path] = asked.get(self.path, 0) + 1
        body = f"answer {asked[self.path]}".encode()
        self.send_response(200)
        self.send_header("Cache-Control", "max-age=60")
        if ages[self.path] is not None:
            self.send_header("Age", str(ages[self.path]))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


CONFIG = """
daemon off;
pid nginx.pid;
error_log errors;
events {{}}
http {{
    access_log off;
    client_body_temp_path temp/body;
    proxy_temp_path temp/proxy;
    fastcgi_temp_path temp/fastcgi;
    uwsgi_temp_path temp/uwsgi;
    scgi_temp_path temp/scgi;
    proxy_cache_path cache keys_zone=kept:1m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_cache kept;
            add_header X-Cache $upstream_cache_status;
        }}
    }}
}}
"""


def ask(path):
    for _ in range(200):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", path)
            answer = connection.getresponse()
        except ConnectionRefusedError:
            time.sleep(0.05)
            continue
        body = answer.read().decode()
        return answer.getheader("X-Cache"), body, answer.getheader("Age")
    sys.exit("nginx did not come up")


binary, room = sys.argv[1:]
server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
threading.Thread(target=server.serve_forever, daemon=True).start()
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
with open("nginx.conf", "w") as config:
    config.write(CONFIG.format(port=port, upstream=server.server_port))
version = subprocess.run([binary, "-v"], capture_output=True, text=True).stderr
print(re.search(r"nginx/\S+", version).group())
nginx = subprocess.Popen([binary, "-p", room, "-c", "nginx.conf", "-e", "errors"])
try:
    first = {path: ask(path) for path in ages}
    time.sleep(2.1)
    then = {path: ask(path) for path in ages}
finally:
    nginx.terminate()
    nginx.wait()
for path in ages:
    print(
        f"{path:14} at once: {first[path][0]}, {first[path][1]}, Age {first[path][2]}"
        f"   later: {then[path][0]}, {then[path][1]}, Age {then[path][2]}"
    )
for path, age in ages.items():
    told = None if age is None else str(age)
    same = "answer 1", told
    if first[path] != ("MISS", *same) or then[path] != ("HIT", *same):
        sys.exit(f"CHANGED: nginx treats the Age of {path} otherwise")
PYTHON
mkdir temp
python3 see.py "$nginx" "$room"
