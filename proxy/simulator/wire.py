"""Send a reply over a socket: whole, or with a chosen fault."""

import gzip
import selectors
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from http import HTTPStatus

from proxy.simulator.replies import Reply
from proxy.simulator.scripts import MAX_WAIT, Wire

DRIP_INTERVAL = 1.0
BOMB_BYTES = 100 * 1024 * 1024
HUGE_BYTES = 30 * 1024 * 1024
CHUNK_BYTES = 16
_SLICE = b"A" * 65536
# Seconds until a wait notices that the client has gone; the event ends it at once.
_POLL_INTERVAL = 0.05


class End(Enum):
    """The cause of a wait's end."""

    TIME = auto()
    EVENT = auto()
    CLIENT_GONE = auto()


def wait(connection: socket.socket, seconds: float, event: threading.Event) -> End:
    """Wait for *seconds*, until *event* or until the client closes *connection*."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if event.wait(min(left, _POLL_INTERVAL)):
                return End.EVENT
            if selector.select(0) and _has_ended(connection):
                return End.CLIENT_GONE
    return End.TIME


def _has_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one reply is sent; *released* ends a drip: the rest is sent at once."""

    wire: Wire
    released: threading.Event
    keeps_alive: bool = True
    has_body: bool = True


def send(connection: socket.socket, reply: Reply, delivery: Delivery) -> bool:
    """Send *reply* as *delivery* says; return if *connection* can be used again.

    Raises:
        OSError: the client has gone.
    """
    match delivery.wire:
        case Wire.WHOLE | Wire.HANG:
            body = reply.body if delivery.has_body else b""
            connection.sendall(_head(reply, delivery, len(reply.body)) + body)
        case Wire.DROP:
            return False
        case Wire.RESET:
            _reset(connection)
            return False
        case Wire.TRUNCATE:
            head = _head(reply, delivery, len(reply.body))
            connection.sendall(head + reply.body[: len(reply.body) // 2])
            return False
        case Wire.DRIP:
            connection.sendall(_head(reply, delivery, len(reply.body)))
            return _drip(connection, reply.body, delivery)
        case Wire.DRIP_HEADERS:
            head = _head(reply, delivery, len(reply.body))
            if not _drip(connection, head, delivery):
                return False
            connection.sendall(reply.body)
        case Wire.GZIP:
            _send_gzipped(connection, reply, delivery, gzip.compress(reply.body))
        case Wire.GZIP_BOMB:
            _send_gzipped(connection, reply, delivery, gzip_bomb())
        case Wire.HUGE:
            connection.sendall(_head(reply, delivery, HUGE_BYTES))
            for part in _huge_body():
                connection.sendall(part)
        case Wire.CHUNKED:
            connection.sendall(_head(reply, delivery, None))
            for part in _chunks(reply.body):
                connection.sendall(part)
    return delivery.keeps_alive


def _head(reply: Reply, delivery: Delivery, length: int | None, *extra: str) -> bytes:
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {reply.status} {phrase}", *extra]
    lines += [f"{name}: {text}" for name, text in reply.headers.items()]
    if length is None:
        lines.append("transfer-encoding: chunked")
    elif "content-length" not in reply.headers:
        lines.append(f"content-length: {length}")
    lines.append("connection: " + ("keep-alive" if delivery.keeps_alive else "close"))
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _reset(connection: socket.socket) -> None:
    """Close with an RST: the reader gets an error in place of an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Not close(): that would wait for the reader's file object, and the server's
    # own shutdown would by then have ended the stream with a FIN.
    socket.close(connection.detach())


def _drip(connection: socket.socket, content: bytes, delivery: Delivery) -> bool:
    for at in range(min(len(content), int(MAX_WAIT / DRIP_INTERVAL))):
        connection.sendall(content[at : at + 1])
        match wait(connection, DRIP_INTERVAL, delivery.released):
            case End.CLIENT_GONE:
                return False
            case End.EVENT:
                connection.sendall(content[at + 1 :])
                return delivery.keeps_alive
            case End.TIME:
                pass
    return delivery.keeps_alive and len(content) <= MAX_WAIT / DRIP_INTERVAL


def _send_gzipped(
    connection: socket.socket, reply: Reply, delivery: Delivery, content: bytes
) -> None:
    connection.sendall(
        _head(reply, delivery, len(content), "content-encoding: gzip") + content
    )


@lru_cache(maxsize=1)
def gzip_bomb() -> bytes:
    """Return about 100 kB that inflate to 100 MB: the beginning of a JSON object."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(b'{"name":"')]
    for _ in range(BOMB_BYTES // len(_SLICE)):
        parts.append(packer.compress(_SLICE))
    return b"".join([*parts, packer.flush()])


def _huge_body() -> Iterator[bytes]:
    first, last = b'{"name":"', b'"}'
    yield first
    left = HUGE_BYTES - len(first) - len(last)
    while left > 0:
        yield _SLICE[:left]
        left -= len(_SLICE)
    yield last


def _chunks(body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), CHUNK_BYTES):
        part = body[at : at + CHUNK_BYTES]
        yield b"%x\r\n%b\r\n" % (len(part), part)
    yield b"0\r\n\r\n"
