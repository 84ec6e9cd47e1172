"""The load: plain HTTP/1.1 over many sockets, from one thread.

Written with a selector rather than a client library, so that the client costs little
beside the contender; ``wrk.py`` makes the largest loads. Moments are of
``time.perf_counter()``, and durations in seconds.
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
"""Seconds after which a missing answer is given up."""

CONNECTIONS = 20
"""Keep-alive connections that share an open loop."""

KEY, KEY_LINE = new_key("bench", frozenset(Scope))
"""The API key of every request to any contender, and its line of the file."""

AUTHORIZATION = f"Bearer {KEY}"


@dataclass(slots=True, eq=False)
class Call:
    """One request on its own connection. ``ended_at`` is 0.0 without an answer."""

    connection: socket.socket
    began_at: float
    ended_at: float = 0.0
    received: bytearray = field(default_factory=bytearray)

    @property
    def status(self) -> int:
        """The status of the answer; 0 without an answer."""
        return int(self.received.split(b" ", 2)[1]) if self.ended_at else 0


def head(method: str, path: str, *lines: str) -> bytes:
    """Return a request up to its body, with more header *lines*."""
    first = (f"{method} {path} HTTP/1.1", "Host: localhost")
    key = f"Authorization: {AUTHORIZATION}"
    return "\r\n".join([*first, key, *lines, "", ""]).encode()


def get(path: str) -> bytes:
    return head("GET", path)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), WITHIN)


def send(port: int, path: str) -> Call:
    """Send a request without waiting for its answer: `collect` waits."""
    began_at = time.perf_counter()
    connection = connect(port)
    connection.sendall(get(path))
    return Call(connection, began_at)


def collect(calls: Sequence[Call], within: float = WITHIN) -> None:
    """Wait for every answer, at most *within* seconds, and close the connections."""
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
    """Read the received bytes; return whether the answer or connection has ended."""
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
    """Request all *paths* at once, each on its own connection; also return the time."""
    began_at = time.perf_counter()
    calls = [send(port, path) for path in paths]
    collect(calls)
    return time.perf_counter() - began_at, calls


def prime(
    port: int, paths: Sequence[str], *, at_once: int = 50, status: int = 200
) -> None:
    """Request each of *paths* once, so that the next request is a hit.

    A 503 is retried, up to a hundred times in all: on a shared machine a store
    sometimes does not answer in time.

    Raises:
        Failed: an answer has another *status*, or does not come.
    """
    waiting, spare = deque(paths), 100
    pending: dict[socket.socket, tuple[str, bytearray]] = {}
    with selectors.DefaultSelector() as ready, ExitStack() as closing:
        idle = [closing.enter_context(connect(port)) for _ in paths[:at_once]]
        for connection in idle:
            ready.register(connection, selectors.EVENT_READ)
        while waiting or pending:
            while waiting and idle:
                connection, path = idle.pop(), waiting.popleft()
                connection.sendall(get(path))
                pending[connection] = path, bytearray()
            if not (events := ready.select(WITHIN)):
                raise Failed(f"nothing was answered for {WITHIN:g} s")
            for event, _ in events:
                connection = cast(socket.socket, event.fileobj)
                if not (part := connection.recv(65536)) or connection not in pending:
                    raise Failed("a connection was closed without an answer")
                path, received = pending[connection]
                received += part
                if not is_complete(received):
                    continue
                del pending[connection]
                idle.append(connection)
                if received.startswith(b"HTTP/1.1 503") and spare:
                    spare -= 1
                    waiting.append(path)
                else:
                    check_status(received, status)


@dataclass(slots=True)
class Stream:
    """Requests at a steady *rate* a second, which do not wait for each other.

    Each is timed from the moment it was due, so a pause of the service counts for
    all requests that were due meanwhile. Only an answer for which *counts* returns
    true is counted; *counts* raises Failed for an answer that must not come.
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
    """Return the seconds that each of *rate* hits a second took."""
    stream = hits(port, paths, rate=rate)
    open_loops([stream], after(seconds))
    return stream.took


def after(seconds: float) -> Callable[[], bool]:
    """Return a function that reports whether *seconds* have passed since now."""
    until = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= until


def hits(port: int, paths: Sequence[str], *, rate: float, only: bool = True) -> Stream:
    """Return a stream of hits on *paths*; without *only*, misses are not counted.

    With *only* a miss raises Failed.
    """

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
    """Send all *streams* until *is_over*, and wait for the pending answers."""
    # select(2) waits to the microsecond, epoll only to the millisecond.
    with selectors.SelectSelector() as ready, ExitStack() as closing:
        loops = [_Loop(stream, ready, closing) for stream in streams]
        while not is_over():
            pause = min(loop.send_due() for loop in loops)
            for event, _ in ready.select(pause):
                event.data.receive(event.fileobj)
        until = time.perf_counter() + WITHIN
        while any(loop.pending for loop in loops) and time.perf_counter() < until:
            for event, _ in ready.select(1.0):
                event.data.receive(event.fileobj)
        for loop in loops:
            loop.stream.took += [WITHIN] * len(loop.pending)


class _Loop:
    """One stream on its connections."""

    def __init__(
        self, stream: Stream, ready: selectors.SelectSelector, closing: ExitStack
    ) -> None:
        self.stream = stream
        self.pending: dict[socket.socket, tuple[float, bytearray]] = {}
        self._idle = deque(
            closing.enter_context(stream.connect()) for _ in range(CONNECTIONS)
        )
        for connection in self._idle:
            ready.register(connection, selectors.EVENT_READ, self)
        self._began_at, self._sent = time.perf_counter(), 0

    def send_due(self) -> float:
        """Send the due requests; return the seconds until the next is due."""
        while (pause := self._due_at() - time.perf_counter()) <= 0 and self._idle:
            connection = self._idle.popleft()
            requests = self.stream.requests
            connection.sendall(requests[self._sent % len(requests)])
            self.pending[connection] = (self._due_at(), bytearray())
            self._sent += 1
        return max(0.0, pause) if self._idle else 1.0

    def receive(self, connection: socket.socket) -> None:
        part = connection.recv(65536)
        if not part or connection not in self.pending:
            raise Failed("a keep-alive connection was closed")
        due_at, received = self.pending[connection]
        received += part
        if self.stream.is_complete(received):
            took = time.perf_counter() - due_at
            del self.pending[connection]
            self._idle.append(connection)
            if self.stream.counts(received):
                self.stream.took.append(took)

    def _due_at(self) -> float:
        return self._began_at + self._sent / self.stream.rate


def percentile(took: Sequence[float], percent: float) -> float:
    return sorted(took)[min(len(took) - 1, int(len(took) * percent / 100))]


@dataclass(slots=True)
class Result:
    """How many requests of a client were answered, and how many were lost."""

    answered: int = 0
    lost: int = 0


def keep_asking(port: int, path: str, *, every: float, until: float) -> Result:
    """Request *path* on one keep-alive connection, as a client without a health check.

    It connects again after ``Connection: close``, and ends if no one listens any more,
    which loses nothing. A request that was sent and not answered, and a connection
    that was reset, are lost.
    """
    result, connection = Result(), None
    while time.perf_counter() < until:
        try:
            connection = connection or connect(port)
            connection.sendall(get(path))
            stays_open = _receive(connection)
            result.answered += 1
        except ConnectionRefusedError:
            return result
        except OSError:
            stays_open, result.lost = False, result.lost + 1
        if not stays_open and connection:
            connection.close()
            connection = None
        time.sleep(every)
    if connection:
        connection.close()
    return result


def _receive(connection: socket.socket) -> bool:
    """Read one answer; return whether the connection may be used again.

    Raises:
        OSError: the connection ended first.
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
    """Whether *received* is a whole answer."""
    head, blank, body = received.partition(b"\r\n\r\n")
    if not blank:
        return False
    _, found, rest = head.lower().partition(b"\r\ncontent-length: ")
    if not found:
        return body.endswith(b"0\r\n\r\n")  # chunked
    return len(body) >= int(rest.partition(b"\r")[0])
