#!/usr/bin/env bash
# aiohttp-client-cache with cache_control=True overlooks `no-cache` in an answer, and then
# keeps the answer without end and never asks again.
#
# The guess: `no-cache` in an answer means "ask before each use" (RFC 9111, 5.2.2.4), and a
# cache that does not revalidate treats it as `no-store` or as expired at once, as it does
# `max-age=0`.
#
# What happens: there is no expiry for it in this library's eyes, so the default holds, and
# that is for ever. The most cautious of three answers is the only one that sticks.
#
# Seen with aiohttp-client-cache 0.15.0 and requests-cache 1.3.3 (cache_control=True),
# CacheControl 0.14.4; questions that reached the server of three, each answer with an ETag:
#
#                            no-cache   max-age=0   no-store
#     aiohttp-client-cache   1          3           3
#     requests-cache         3          3           3
#     CacheControl           3          3           3
#
# For a service that marks what may change at any moment with `no-cache`: this client goes
# on with the first answer until its process ends. `no-cache, max-age=0` says the same to
# every cache, and this one asks again.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check \
    requests==2.34.2 requests-cache==1.3.3 aiohttp==3.14.5 aiohttp-client-cache==0.15.0 \
    CacheControl==0.14.4
cd "$room"
cat >see.py <<'PYTHON'
import asyncio, http.server, sys, threading, urllib.parse

import aiohttp_client_cache, cachecontrol, requests, requests_cache

asked = []


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked.append(self.path)
        self.send_response(304 if self.headers.get("If-None-Match") else 200)
        self.send_header("Cache-Control", urllib.parse.unquote(self.path.strip("/")))
        self.send_header("ETag", '"a"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
threading.Thread(target=server.serve_forever, daemon=True).start()
here = f"http://127.0.0.1:{server.server_port}/"
loop = asyncio.new_event_loop()


async def begin():
    cache = aiohttp_client_cache.CacheBackend(cache_control=True)
    return aiohttp_client_cache.CachedSession(cache=cache)


session = loop.run_until_complete(begin())


async def get(url):
    async with session.get(url) as response:
        await response.read()


clients = {
    "aiohttp-client-cache": lambda url: loop.run_until_complete(get(url)),
    "requests-cache": requests_cache.CachedSession(
        backend="memory", cache_control=True
    ).get,
    "CacheControl": cachecontrol.CacheControl(requests.Session()).get,
}
seen = {}
for name, ask in clients.items():
    for said in ("no-cache", "max-age=0", "no-store", "no-cache, max-age=0"):
        asked.clear()
        for _ in range(3):
            ask(here + urllib.parse.quote(said))
        seen[name, said] = len(asked)
        print(f"{name:22} {said:20} {len(asked)} of 3 questions reached the server")
wanted = {key: 3 for key in seen} | {("aiohttp-client-cache", "no-cache"): 1}
sys.stdout.flush()
if seen != wanted:
    sys.exit("CHANGED: a client's cache treats no-cache otherwise")
PYTHON
venv/bin/python see.py 2>errors || { cat errors >&2; exit 1; }
