#!/usr/bin/env bash
# Python's multiprocessing puts shared memory into /dev/shm even where that is read-only.
#
# The guess: multiprocessing.Value, RawValue and Array use /dev/shm if they can, and
# otherwise the folder for temporary files. So TMPDIR helps in a container whose root is
# read-only.
#
# What happens: /dev/shm is taken if it has enough free space, and a read-only one has.
# TMPDIR is tried only where there is no /dev/shm, or where it is full.
#
# Seen with Python 3.11.7 on Linux, with a writable TMPDIR:
#
#     /dev/shm writable   ok
#     /dev/shm read-only  OSError: [Errno 30] Read-only file system: '/dev/shm/pym-...'
#
# For a service: it ends with a traceback about a file that is not in its code. Let it
# choose the folder itself before it makes the first value, or, where processes are forked,
# use mmap.mmap(-1, size), which needs no file. The script needs the right to unshare
# mounts.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
cat >"$room/share.py" <<'PYTHON'
import multiprocessing
import re

try:
    multiprocessing.RawValue("i", 1)
    print("ok")
except OSError as error:
    print("OSError:", re.sub(r"pym-[^']+", "pym-...", str(error)))
PYTHON
export TMPDIR=$room
seen=$(
    printf '/dev/shm writable   '
    python3 "$room/share.py"
    printf '/dev/shm read-only  '
    unshare -rm sh -c "mount -t tmpfs -o ro none /dev/shm && python3 $room/share.py"
)
echo "$seen"
expected="/dev/shm writable   ok
/dev/shm read-only  OSError: [Errno 30] Read-only file system: '/dev/shm/pym-...'"
[ "$seen" = "$expected" ] || { echo "CHANGED: it uses another folder now"; exit 1; }
