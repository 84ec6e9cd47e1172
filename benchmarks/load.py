"""The load: plain HTTP/1.1 over many sockets, from one thread.

Written for a selector rather than with a client library, so that the caller costs
little beside what it calls; hits by the thousand are asked for by ``wrk.py``. Moments
are ``time.perf_counter()``, durations seconds.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import cast

from benchmarks.children import Failed
from proxy.web.auth import Scope, new_key

WITHIN = 30.0
"""Seconds after which an answer that has not come is given up."""

CONNECTIONS = 20
"""Keep-alive connections that share an open loop."""

KEY, KEY_LINE = new_key("bench", frozenset(Scope))
"""The API key that every request bears, whoever is asked, and its line of the file."""

AUTHORIZATION = f"Bearer {KEY}"


@dataclass(slots=True, eq=False)
class Call:
    """One request on a connection of its own. ``ended_at`` is 0.0 without an answer."""

    connection: socket.socket
    began_at: float
    ended_at: float = 0.0
    received: bytearray = field(default_factory=bytearray)

    @property
    def status(self) -> int:
        """The answer's status; 0 if none came."""
        return int(self.received.split(b" ", 2)[1]) if self.ended_at else 0


def head(method: str, path: str, *lines: str) -> bytes:
    """A request up to its body, with more header *lines*."""
    first = (f"{method} {path} HTTP/1.1", "Host: localhost")
    ours = f"Authorization: {AUTHORIZATION}"
    return "\r\n".join([*first, ours, *lines, "", ""]).encode()


def get(path: str) -> bytes:
    return head("GET", path)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), WITHIN)


def send(port: int, path: str) -> Call:
    """Ask, and do not wait for the answer: `collect` does."""
    began_at = time.perf_counter()
    connection = connect(port)
    connection.sendall(get(path))
    return Call(connection, began_at)


def collect(calls: Sequence[Call], within: float = WITHIN) -> None:
    """Wait for every answer, or so many seconds, and hang up."""
    until, open_ones = time.perf_counter() + within, len(calls)
    with selectors.DefaultSelector() as ready:
        for call in calls:
            ready.register(call.connection, selectors.EVENT_READ, call)
        while open_ones and (left := until - time.perf_counter()) > 0:
            for event, _ in ready.select(left):
                if _is_over(event.data):
                    ready.unregister(event.fileobj)
                    open_ones -= 1
    for call in calls:
        call.connection.close()


def _is_over(call: Call) -> bool:
    """Read what has come; whether that was the end, of an answer or without one."""
    try:
        part = call.connection.recv(65536)
    except OSError:
        return True
    call.received += part
    if is_complete(call.received):
        call.ended_at = time.perf_counter()
        return True
    return not part


def burst(port: int, paths: Sequence[str]) -> tuple[float, list[Call]]:
    """Ask for all *paths* at once, one on each connection; how long it took."""
    began_at = time.perf_counter()
    calls = [send(port, path) for path in paths]
    collect(calls)
    return time.perf_counter() - began_at, calls


def prime(
    port: int, paths: Sequence[str], *, at_once: int = 50, status: int = 200
) -> None:
    """Have each of *paths* answered, so that the next time is a hit.

    Who is told to come back (503) does, up to a hundred times in all: on a machine
    that others use too, a store seems to be away now and then.

    Raises:
        Failed: an answer has not this *status*, or does not come.
    """
    waiting, spare = deque(paths), 100
    asked: dict[socket.socket, tuple[str, bytearray]] = {}
    with selectors.DefaultSelector() as ready, ExitStack() as closing:
        idle = [closing.enter_context(connect(port)) for _ in paths[:at_once]]
        for connection in idle:
            ready.register(connection, selectors.EVENT_READ)
        while waiting or asked:
            while waiting and idle:
                connection, path = idle.pop(), waiting.popleft()
                connection.sendall(get(path))
                asked[connection] = path, bytearray()
            if not (events := ready.select(WITHIN)):
                raise Failed(f"nothing was answered for {WITHIN:g} s")
            for event, _ in events:
                connection = cast(socket.socket, event.fileobj)
                if not (part := connection.recv(65536)) or connection not in asked:
                    raise Failed("a connection was closed without an answer")
                path, received = asked[connection]
                received += part
                if not is_complete(received):
                    continue
                del asked[connection]
                idle.append(connection)
                if received.startswith(b"HTTP/1.1 503") and spare:
                    spare -= 1
                    waiting.append(path)
                else:
                    check_status(received, status)


@dataclass(slots=True)
class Stream:
    """Requests at a steady *rate* a second, which do not wait for each other.

    How long each took is counted from when it was due, so a service that stops for
    a while is charged for all that were due meanwhile. An answer that *counts*
    says no to is not counted; it raises Failed for one that must not be.
    """

    connect: Callable[[], socket.socket]
    requests: Sequence[bytes]
    rate: float
    is_complete: Callable[[bytearray], bool]
    counts: Callable[[bytearray], bool]
    took: list[float] = field(default_factory=list)


def open_loop(
    port: int, paths: Sequence[str], *, rate: float, seconds: float
) -> list[float]:
    """How long each of *rate* hits a second took."""
    stream = hits(port, paths, rate=rate)
    open_loops([stream], after(seconds))
    return stream.took


def after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed since now."""
    until = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= until


def hits(port: int, paths: Sequence[str], *, rate: float, only: bool = True) -> Stream:
    """A stream of hits on *paths*; a miss fails, or is not counted without *only*."""

    def is_hit(received: bytearray) -> bool:
        check_status(received, 200)
        head = bytes(received.partition(b"\r\n\r\n")[0]).lower()
        hit = b"; hit" in head.partition(b"\r\ncache-status: ")[2].partition(b"\r")[0]
        if only and not hit:
            raise Failed(f"not a hit: {head!r}")
        return hit

    requests = [get(path) for path in paths]
    return Stream(lambda: connect(port), requests, rate, is_complete, is_hit)


def open_loops(streams: Sequence[Stream], is_over: Callable[[], bool]) -> None:
    """Ask in all *streams* until *is_over*, and wait for what is under way then."""
    # select(2) waits to the microsecond, epoll only to the millisecond.
    with selectors.SelectSelector() as ready, ExitStack() as closing:
        loops = [_Loop(stream, ready, closing) for stream in streams]
        while not is_over():
            pause = min(loop.send_due() for loop in loops)
            for event, _ in ready.select(pause):
                event.data.receive(event.fileobj)
        until = time.perf_counter() + WITHIN
        while any(loop.asked for loop in loops) and time.perf_counter() < until:
            for event, _ in ready.select(1.0):
                event.data.receive(event.fileobj)
        for loop in loops:
            loop.stream.took += [WITHIN] * len(loop.asked)


class _Loop:
    """One stream on its connections."""

    def __init__(
        self, stream: Stream, ready: selectors.SelectSelector, closing: ExitStack
    ) -> None:
        self.stream = stream
        self.asked: dict[socket.socket, tuple[float, bytearray]] = {}
        self._idle = deque(
            closing.enter_context(stream.connect()) for _ in range(CONNECTIONS)
        )
        for connection in self._idle:
            ready.register(connection, selectors.EVENT_READ, self)
        self._began_at, self._sent = time.perf_counter(), 0

    def send_due(self) -> float:
        """Send what is due; for how long there is nothing more to send."""
        while (pause := self._due_at() - time.perf_counter()) <= 0 and self._idle:
            connection = self._idle.popleft()
            requests = self.stream.requests
            connection.sendall(requests[self._sent % len(requests)])
            self.asked[connection] = (self._due_at(), bytearray())
            self._sent += 1
        return max(0.0, pause) if self._idle else 1.0

    def receive(self, connection: socket.socket) -> None:
        part = connection.recv(65536)
        if not part or connection not in self.asked:
            raise Failed("a keep-alive connection was closed")
        due_at, received = self.asked[connection]
        received += part
        if self.stream.is_complete(received):
            took = time.perf_counter() - due_at
            del self.asked[connection]
            self._idle.append(connection)
            if self.stream.counts(received):
                self.stream.took.append(took)

    def _due_at(self) -> float:
        return self._began_at + self._sent / self.stream.rate


def percentile(took: Sequence[float], percent: float) -> float:
    return sorted(took)[min(len(took) - 1, int(len(took) * percent / 100))]


@dataclass(slots=True)
class Asked:
    """What became of the requests of a client that keeps asking."""

    answered: int = 0
    lost: int = 0


def keep_asking(port: int, path: str, *, every: float, until: float) -> Asked:
    """Ask on one keep-alive connection, like a client that knows of no restart.

    Told ``Connection: close`` it connects anew. Nothing is lost when nobody
    listens any more: then it is done. A request that was sent and not answered,
    and a connection that was reset, are lost.
    """
    asked, connection = Asked(), None
    while time.perf_counter() < until:
        try:
            connection = connection or connect(port)
            connection.sendall(get(path))
            stays_open = _receive(connection)
            asked.answered += 1
        except ConnectionRefusedError:
            return asked
        except OSError:
            stays_open, asked.lost = False, asked.lost + 1
        if not stays_open and connection:
            connection.close()
            connection = None
        time.sleep(every)
    if connection:
        connection.close()
    return asked


def _receive(connection: socket.socket) -> bool:
    """Read one answer; whether the connection may be used again.

    Raises:
        OSError: the connection ended before.
    """
    received = bytearray()
    while not is_complete(received):
        part = connection.recv(65536)
        if not part:
            raise ConnectionResetError
        received += part
    return b"connection: close" not in received.partition(b"\r\n\r\n")[0].lower()


def check_status(received: bytearray, status: int) -> None:
    if not received.startswith(b"HTTP/1.1 %d" % status):
        raise Failed(f"not a {status}: {bytes(received[:200])!r}")


def is_complete(received: bytearray) -> bool:
    """Whether the whole of an answer is here."""
    head, blank, body = received.partition(b"\r\n\r\n")
    if not blank:
        return False
    _, told, rest = head.lower().partition(b"\r\ncontent-length: ")
    if not told:
        return body.endswith(b"0\r\n\r\n")  # chunked
    return len(body) >= int(rest.partition(b"\r")[0])
