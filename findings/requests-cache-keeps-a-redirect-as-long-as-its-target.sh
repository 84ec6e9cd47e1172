#!/usr/bin/env bash
# requests-cache and aiohttp-client-cache keep the answer at the end of a redirect under
# the address that was asked, for as long as the target permits, whatever the redirect says.
#
# The guess: each answer is kept by its own Cache-Control (RFC 9111), so a redirect with
# max-age=1 is asked for again after a second, and only its target may be kept.
#
# What happens: a client that follows redirects gets the target's answer from its cache
# without a question, after the redirect has expired; with `no-store` on the redirect too.
# CacheControl and hishel (rfc=True) see each step, and ask for the redirect again.
#
# Seen with requests-cache 1.3.3 and aiohttp-client-cache 0.15.0, both with
# cache_control=True, CacheControl 0.14.4 and hishel 2.0.0, two questions, 2.1 s apart:
#
#                         302 with max-age=1               302 with no-store
#     requests-cache      picture target                   picture target
#     aiohttp-client-cache picture target                  picture target
#     CacheControl        picture target picture           picture target picture
#     hishel              picture target picture           picture target picture
#
# For a service that redirects to pictures on a CDN, which may be kept for two weeks: these
# clients neither see that a picture has changed, nor that its person has been erased. They
# should not follow the redirect themselves (allow_redirects=False), or leave its address
# out (urls_expire_after with DO_NOT_CACHE).
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check \
    requests==2.34.2 requests-cache==1.3.3 aiohttp==3.14.5 aiohttp-client-cache==0.15.0 \
    CacheControl==0.14.4 hishel==2.0.0
cd "$room"
cat >see.py <<'PYTHON'
import asyncio, http.server, sys, threading, time

import aiohttp_client_cache, cachecontrol, hishel, hishel.requests, requests
import requests_cache

asked = []


class Pictures(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        kind, _, step = self.path.strip("/").partition("/")
        asked.append(step)
        if step == "picture":
            self.send_response(302)
            self.send_header("Location", f"/{kind}/target")
            self.send_header("Cache-Control", kind)
        else:
            self.send_response(200)
            self.send_header("Cache-Control", "max-age=1209600")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
threading.Thread(target=server.serve_forever, daemon=True).start()
here = f"http://127.0.0.1:{server.server_port}"


def plain(session):
    return lambda url: session.get(url)


def with_hishel():
    session = requests.Session()
    storage = hishel.SqliteStorage(database_path="hishel.db")
    session.mount("http://", hishel.requests.CacheAdapter(storage=storage, rfc=True))
    return plain(session)


def with_aiohttp():
    loop = asyncio.new_event_loop()

    async def begin():
        cache = aiohttp_client_cache.CacheBackend(cache_control=True)
        return aiohttp_client_cache.CachedSession(cache=cache)

    session = loop.run_until_complete(begin())

    async def get(url):
        async with session.get(url) as response:
            await response.read()

    return lambda url: loop.run_until_complete(get(url))


clients = {
    "requests-cache": plain(
        requests_cache.CachedSession(backend="memory", cache_control=True)
    ),
    "aiohttp-client-cache": with_aiohttp(),
    "CacheControl": plain(cachecontrol.CacheControl(requests.Session())),
    "hishel": with_hishel(),
}
seen = {}
for kind in ("max-age=1", "no-store"):
    for name, get in clients.items():
        asked.clear()
        get(f"{here}/{kind}/picture")
        seen[name, kind] = list(asked)
    time.sleep(2.1)
    for name, get in clients.items():
        asked.clear()
        get(f"{here}/{kind}/picture")
        seen[name, kind] += asked
        print(f"{name:20} {kind:10}", *seen[name, kind])
kept, followed = ["picture", "target"], ["picture", "target", "picture"]
wanted = {
    (name, kind): kept if name in ("requests-cache", "aiohttp-client-cache") else followed
    for name, kind in seen
}
sys.stdout.flush()
if seen != wanted:
    sys.exit("CHANGED: a client's cache treats a redirect otherwise")
PYTHON
venv/bin/python see.py 2>errors || { cat errors >&2; exit 1; }
