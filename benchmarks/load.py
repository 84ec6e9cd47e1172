"""The load: plain HTTP/1.1 over many sockets, from one thread.

Written for a selector rather than with a client library, so that the caller costs
little beside what it calls. Moments are ``time.perf_counter()``, durations seconds.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

WITHIN = 30.0
"""Seconds after which an answer that has not come is given up."""

CONNECTIONS = 20
"""Keep-alive connections that share an open loop."""


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


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


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


def prime(port: int, paths: Sequence[str], at_once: int = 50) -> None:
    """Have each of *paths* answered once, so that the next time is a hit."""
    for first in range(0, len(paths), at_once):
        _, calls = burst(port, paths[first : first + at_once])
        if any(call.status != 200 for call in calls):
            raise SystemExit(f"could not prime: {bytes(calls[0].received[:200])!r}")


def closed_loop(
    port: int, paths: Sequence[str], *, connections: int, seconds: float
) -> float:
    """Hits a second, one at a time on each of some keep-alive connections."""
    requests, done, number = [get(path) for path in paths], 0, 0
    with selectors.DefaultSelector() as ready, ExitStack() as closing:
        for number in range(connections):
            connection = closing.enter_context(connect(port))
            ready.register(connection, selectors.EVENT_READ, bytearray())
            connection.sendall(requests[number % len(requests)])
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for event, _ in ready.select(1):
                received = event.data
                received += event.fileobj.recv(65536)
                if is_complete(received):
                    check_hit(received)
                    received.clear()
                    done, number = done + 1, number + 1
                    event.fileobj.sendall(requests[number % len(requests)])
    return done / seconds


def open_loop(
    port: int, paths: Sequence[str], *, rate: float, seconds: float
) -> list[float]:
    """How long each of *rate* hits a second took, counted from when it was due.

    So a service that stops for a while is charged for all that were due meanwhile.
    """
    took: list[float] = []
    # select(2) waits to the microsecond, epoll only to the millisecond.
    with selectors.SelectSelector() as ready, ExitStack() as closing:
        idle = deque(closing.enter_context(connect(port)) for _ in range(CONNECTIONS))
        asked: dict[socket.socket, tuple[float, bytearray]] = {}
        for connection in idle:
            ready.register(connection, selectors.EVENT_READ)
        begin, wanted = time.perf_counter(), int(rate * seconds)
        due = deque(begin + number / rate for number in range(wanted))
        until = begin + seconds + WITHIN
        while len(took) < wanted and time.perf_counter() < until:
            while due and idle and due[0] <= time.perf_counter():
                connection = idle.popleft()
                connection.sendall(get(paths[len(due) % len(paths)]))
                asked[connection] = (due.popleft(), bytearray())
            pause = due[0] - time.perf_counter() if due and idle else 1.0
            for event, _ in ready.select(max(0.0, pause)):
                due_at, received = asked[event.fileobj]
                received += event.fileobj.recv(65536)
                if is_complete(received):
                    took.append(time.perf_counter() - due_at)
                    check_hit(received)
                    idle.append(event.fileobj)
    return took + [WITHIN] * (wanted - len(took))


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


def check_hit(received: bytearray) -> None:
    if not received.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"not a hit: {bytes(received[:200])!r}")


def is_complete(received: bytearray) -> bool:
    """Whether the whole of an answer is here."""
    head, blank, body = received.partition(b"\r\n\r\n")
    if not blank:
        return False
    _, told, rest = head.lower().partition(b"\r\ncontent-length: ")
    if not told:
        return body.endswith(b"0\r\n\r\n")  # chunked
    return len(body) >= int(rest.partition(b"\r")[0])
