#!/usr/bin/env bash
# Flask-Caching's SimpleCache evicts entries without an expiry first.
#
# The guess: timeout=0 means that an entry never expires, as the documentation says, so
# when the cache is full (CACHE_THRESHOLD), entries near their end make room for it.
#
# What happens: "never" is kept as a moment of expiry of 0, which lies in the past. Once the
# cache is over its threshold, every entry stored for ever counts as expired, and all of
# them go at once, however many; those with an end stay.
#
# Seen with Flask-Caching 2.5.1 and cachelib 0.17.0, a threshold of 5, three entries for
# ever, then four for an hour:
#
#     6 stored: for ever 3 of 3, for an hour 3 of 3
#     7 stored: for ever 0 of 3, for an hour 4 of 4
#
# For a service: settings or tables that were put in for ever at the start are gone after
# some 500 others by default. Give them a long timeout instead, or a dict.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check \
    flask-caching==2.5.1 cachelib==0.17.0 flask==3.1.3
cd "$room"
cat >see.py <<'PYTHON'
import sys

from flask import Flask
from flask_caching import Cache


def kept(later):
    cache = Cache(
        Flask("app"), config={"CACHE_TYPE": "SimpleCache", "CACHE_THRESHOLD": 5}
    )
    for number in range(3):
        cache.set(f"ever{number}", "here", timeout=0)
    for number in range(later):
        cache.set(f"hour{number}", "here", timeout=3600)
    return [
        sum(cache.get(f"{name}{number}") is not None for number in range(count))
        for name, count in (("ever", 3), ("hour", later))
    ]


six, seven = kept(3), kept(4)
print("6 stored: for ever {} of 3, for an hour {} of 3".format(*six))
print("7 stored: for ever {} of 3, for an hour {} of 4".format(*seven))
if (six, seven) != ([3, 3], [0, 4]):
    sys.exit("CHANGED: SimpleCache makes room otherwise")
PYTHON
venv/bin/python see.py
