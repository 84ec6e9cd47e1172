"""The TCP connections of this process's clients, as the system reports them.

Granian does not show its sockets. A process finds them among its open files, and Linux
reports how long each has been silent.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_TCP_INFO = struct.Struct("24xI16xI4xI64xQQ8xI8xI")
"""The numbers of ``struct tcp_info`` that are read here: ``tcpi_unacked``,
``last_data_sent``, ``last_data_recv``, ``bytes_acked``, ``bytes_received``,
``notsent_bytes`` and ``data_segs_out``. The struct only ever grows at its end.

Source: https://github.com/torvalds/linux/blob/master/include/uapi/linux/tcp.h
"""

Peer = tuple[str, int]
"""A client's address and port."""


class Connection(NamedTuple):
    """A client's connection at one moment; durations are in seconds.

    *segments* is the number of data segments sent to the client, *acked* the number
    of bytes it has acknowledged, and *is_pending* whether any are still to be.
    *is_unanswered* says that the client has sent something since we did.
    """

    peer: Peer
    since_sent: float
    since_received: float
    segments: int
    acked: int
    is_pending: bool
    is_unanswered: bool
    socket: socket.socket | None = None

    def stop_reading(self) -> None:
        """Let the server read the end of the stream after what has arrived."""
        self._shut(socket.SHUT_RD)

    def abort(self) -> None:
        """Close the connection, and drop what the client has not taken."""
        if self.socket is not None:
            linger = struct.pack("ii", 1, 0)
            with suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        if self.socket is not None:
            with suppress(OSError):  # The client has closed it meanwhile.
                self.socket.shutdown(how)


def client_connections(port: int) -> Iterator[Connection]:
    """Yield each connection to our *port*; none outside Linux.

    The socket of each is valid until the next one is asked for. It is a duplicate,
    so that it cannot become another connection's.
    """
    if sys.platform != "linux":
        return
    for fd in map(int, os.listdir("/proc/self/fd")):
        duplicate = _duplicate(fd)
        if duplicate is None:
            continue
        with duplicate:
            connection = _read(duplicate, port)
            if connection is not None:
                yield connection


def _duplicate(fd: int) -> socket.socket | None:
    try:
        duplicate = os.dup(fd)
    except OSError:  # Closed since it was listed.
        return None
    try:
        return socket.socket(fileno=duplicate)
    except OSError:  # Not a socket.
        os.close(duplicate)
        return None


def _read(duplicate: socket.socket, port: int) -> Connection | None:
    if duplicate.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        if duplicate.getsockname()[1] != port:
            return None
        address, client_port = duplicate.getpeername()[:2]
        info = duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:  # A listener, or closed by the client.
        return None
    unacked, sent, came, acked, received, notsent, segments = _TCP_INFO.unpack(info)
    return Connection(
        peer=(address, client_port),
        since_sent=sent / 1000,
        since_received=came / 1000,
        segments=segments,
        acked=acked,
        is_pending=bool(unacked or notsent),
        # In the same tick a request comes before its answer. A new connection counts
        # as sent to when it was made, so the bytes say whether anything has come.
        is_unanswered=came < sent or (received > 0 and segments == 0),
        socket=duplicate,
    )
