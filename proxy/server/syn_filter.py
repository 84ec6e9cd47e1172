"""The last moment of a listener: no caller gets in who could no longer be heard."""

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
    (0x15, 0, 1, 0x02),  # SYN alone? Then the next line, else the one after it
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # take all of it
)
"""A filter of packets: instructions of code, two jumps and a value.

Source: https://www.kernel.org/doc/html/latest/networking/filter.html
"""


def drop_new_connections() -> None:
    """Let the listeners of this process begin no further connection.

    Connections that are made, accepted or not, are as they were. A server that
    closes its listener breaks those which nobody has accepted yet, and granian
    those which have sent nothing yet: of callers who connect at that moment,
    some lose a request. Whoever gets no answer to a SYN has sent none. It is
    sent again after a second, and then refused, or answered by a successor.

    On Linux only; elsewhere, or where it is not allowed, nothing happens.
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
    code = b"".join(struct.pack("HBBI", *line) for line in _DROP_SYN)
    memory = ctypes.create_string_buffer(code)
    program = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(memory))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
