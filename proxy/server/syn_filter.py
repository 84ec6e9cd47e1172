"""Just before shutdown, drop incoming SYNs so that no client connects in vain.

A trick: a packet filter (BPF) on the listeners that are about to close. Its price is
this file, which only Linux can use. With it no request was lost in 32 stops; deleting
it costs about one request per stop of ten callers who ignore ``readyz`` (29 in 32).
See docs/decisions/0012-a-stop-that-loses-nothing.md.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from contextlib import suppress

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python's socket does not name it.

_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of TCP's flags
    (0x54, 0, 0, 0x12),  # and keep of it SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone? Then the next instruction, or the one after it
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # accept all of it
)
"""A packet filter: instructions of a code, two jumps and a value.

Source: https://www.kernel.org/doc/html/latest/networking/filter.html
"""


def drop_new_connections() -> None:
    """Stop the listeners of this process from beginning further connections.

    Established connections, accepted or not, are unaffected. A server that closes
    its listener breaks those not accepted yet, and granian those that have sent
    nothing yet: of clients that connect at that moment, some lose a request. A
    client without an answer to its SYN has sent no request. It sends the SYN again
    after a second, and is then refused, or answered by a successor.

    Does nothing outside Linux, or where the system does not allow it.
    """
    if sys.platform != "linux":
        return
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            listener = socket.socket(fileno=fd)
        except OSError:  # Not a socket.
            continue
        with suppress(OSError):
            if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                _attach(listener)
        listener.detach()


def _attach(listener: socket.socket) -> None:
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN)
    memory = ctypes.create_string_buffer(code)
    program = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(memory))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
