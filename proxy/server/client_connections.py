"""The TCP connections of this process's clients, as the system reports them.

Granian does not show its sockets. A process finds them among its open files, and Linux
reports how long each has been silent.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import struct
import sys
import termios
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

_TCP_INFO = struct.Struct("44xI4xI64xQQ20xI")
"""The numbers of ``struct tcp_info`` that are read here: ``tcpi_last_data_sent``,
``last_data_recv``, ``bytes_acked``, ``bytes_received`` and ``data_segs_out``. The
struct only ever grows at its end.

Source: https://github.com/torvalds/linux/blob/master/include/uapi/linux/tcp.h
"""

Peer = tuple[str, int]
"""A client's address and port."""


class Connection(NamedTuple):
    """A client's connection at one moment; durations are in seconds.

    *segments* is the number of data segments sent to the client, *acked* the number
    of bytes it has acknowledged, and *queued* the number of those still to be.
    *is_unanswered* says that the client has sent something since we did.
    """

    peer: Peer
    since_sent: float
    since_received: float
    segments: int
    acked: int
    queued: int
    is_unanswered: bool
    fd: int = -1

    def is_from(self, address: str) -> bool:
        """Return whether the client's address is this one."""
        return without_zone(self.peer[0]) == without_zone(address)

    def stop_reading(self) -> None:
        """Let the server read the end of the stream after what has arrived."""
        self._shut(socket.SHUT_RD)

    def abort(self) -> None:
        """Close the connection, and drop what the client has not taken."""
        self._shut(socket.SHUT_RDWR, lingers_for=0)

    def _shut(self, how: int, lingers_for: int | None = None) -> None:
        with suppress(OSError), _held(self.fd) as held:
            if held.getpeername()[:2] != self.peer:
                return  # It has ended, and the number is another's now.
            if lingers_for is not None:
                linger = struct.pack("ii", 1, lingers_for)
                held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            held.shutdown(how)


def without_zone(address: str) -> str:
    """Return an address of IPv6 without the zone that some write with it."""
    return address.partition("%")[0]


def client_connections(port: int) -> Iterator[Connection]:
    """Yield each connection to our *port*; none outside Linux.

    It opens no file, so that it works when this process may open no more.
    """
    if sys.platform != "linux":
        return
    for fd in _open_files():
        connection = _read(fd, port)
        if connection is not None:
            yield connection


def _open_files() -> Iterable[int]:
    try:
        return map(int, os.listdir("/proc/self/fd"))
    except OSError:  # Too many open files to list them: then each number is one.
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


@contextmanager
def _held(fd: int) -> Iterator[socket.socket]:
    """Yield a duplicate of a socket, which cannot become another connection's."""
    try:
        held = os.dup(fd)
    except OSError as exc:
        if exc.errno != errno.EMFILE:
            raise
        held = fd
    try:
        opened = socket.socket(fileno=held)
        try:
            yield opened
        finally:
            opened.detach()
    finally:
        if held != fd:
            os.close(held)


def _read(fd: int, port: int) -> Connection | None:
    try:
        # Only the family need be asked for: it gives an address its length.
        opened = socket.socket(type=socket.SOCK_STREAM, proto=0, fileno=fd)
    except OSError:  # No socket.
        return None
    try:
        ours = opened.getsockname()
        if not isinstance(ours, tuple) or ours[1:2] != (port,):
            return None
        peer = opened.getpeername()[:2]
        info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        queued = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4))
    except OSError:  # A listener, or closed by the client.
        return None
    finally:
        opened.detach()
    sent, came, acked, received, segments = _TCP_INFO.unpack(info)
    return Connection(
        peer=peer,
        fd=fd,
        since_sent=sent / 1000,
        since_received=came / 1000,
        segments=segments,
        acked=acked,
        queued=int.from_bytes(queued, sys.byteorder),
        # In the same tick a request comes before its answer. A new connection counts
        # as sent to when it was made, so the bytes say whether anything has come.
        is_unanswered=came < sent or (received > 0 and segments == 0),
    )
