"""A reply's way onto the socket: whole, or gone wrong in a chosen manner."""

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
from proxy.simulator.scripts import LONGEST_WAIT, Wire

DRIP_EVERY = 1.0
BOMB_BYTES = 100 * 1024 * 1024
HUGE_BYTES = 30 * 1024 * 1024
CHUNK_BYTES = 16
_SLICE = b"A" * 65536
# How soon a wait notices that the client has gone; the event itself ends it at once.
_LOOK_EVERY = 0.05


class End(Enum):
    """What ended a wait."""

    TIME = auto()
    EVENT = auto()
    CLIENT_GONE = auto()


def wait(line: socket.socket, seconds: float, event: threading.Event) -> End:
    """Wait for *seconds*, until *event* or until the client closes *line*."""
    until = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            if event.wait(min(left, _LOOK_EVERY)):
                return End.EVENT
            if selector.select(0) and _is_at_end(line):
                return End.CLIENT_GONE
    return End.TIME


def _is_at_end(line: socket.socket) -> bool:
    try:
        return line.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True


@dataclass(frozen=True, slots=True)
class Manner:
    """How one reply is to be sent. *released* ends a drip: the rest comes at once."""

    wire: Wire
    released: threading.Event
    keeps_alive: bool = True
    has_body: bool = True


def send(line: socket.socket, reply: Reply, manner: Manner) -> bool:
    """Send *reply* in that manner; say if *line* can take another request.

    Raises:
        OSError: the client has gone.
    """
    match manner.wire:
        case Wire.WHOLE | Wire.HANG:
            body = reply.body if manner.has_body else b""
            line.sendall(_head(reply, manner, len(reply.body)) + body)
        case Wire.DROP:
            return False
        case Wire.RESET:
            _reset(line)
            return False
        case Wire.TRUNCATE:
            head = _head(reply, manner, len(reply.body))
            line.sendall(head + reply.body[: len(reply.body) // 2])
            return False
        case Wire.DRIP:
            line.sendall(_head(reply, manner, len(reply.body)))
            return _drip(line, reply.body, manner)
        case Wire.DRIP_HEADERS:
            head = _head(reply, manner, len(reply.body))
            if not _drip(line, head, manner):
                return False
            line.sendall(reply.body)
        case Wire.GZIP:
            _send_gzipped(line, reply, manner, gzip.compress(reply.body))
        case Wire.GZIP_BOMB:
            _send_gzipped(line, reply, manner, bomb())
        case Wire.HUGE:
            line.sendall(_head(reply, manner, HUGE_BYTES))
            for part in _huge_body():
                line.sendall(part)
        case Wire.CHUNKED:
            line.sendall(_head(reply, manner, None))
            for part in _chunks(reply.body):
                line.sendall(part)
    return manner.keeps_alive


def _head(reply: Reply, manner: Manner, length: int | None, *extra: str) -> bytes:
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
    lines.append("connection: " + ("keep-alive" if manner.keeps_alive else "close"))
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _reset(line: socket.socket) -> None:
    """Close with an RST: whoever reads gets an error in place of an end."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Not close(): that would wait for the reader's file object, and the server's
    # own shutdown would by then have ended the stream politely.
    socket.close(line.detach())


def _drip(line: socket.socket, content: bytes, manner: Manner) -> bool:
    for at in range(min(len(content), int(LONGEST_WAIT / DRIP_EVERY))):
        line.sendall(content[at : at + 1])
        match wait(line, DRIP_EVERY, manner.released):
            case End.CLIENT_GONE:
                return False
            case End.EVENT:
                line.sendall(content[at + 1 :])
                return manner.keeps_alive
            case End.TIME:
                pass
    return manner.keeps_alive and len(content) <= LONGEST_WAIT / DRIP_EVERY


def _send_gzipped(
    line: socket.socket, reply: Reply, manner: Manner, content: bytes
) -> None:
    line.sendall(_head(reply, manner, len(content), "content-encoding: gzip") + content)


@lru_cache(maxsize=1)
def bomb() -> bytes:
    """About 100 kB that inflate to 100 MB: the beginning of a JSON object."""
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
