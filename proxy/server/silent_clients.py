"""Close the connections of clients that stop in the middle of a request or an answer.

A trick: granian has one timer for an idle connection and for the head of a request, and
none for a client that does not read its answer. This looks at all connections every two
seconds, and closes by what the system says of each: one whose client has sent the
beginning of a head and not the rest, and one whose client does not take its answer.

Its price is this file, Linux, and a look that takes 12 us a connection. Deleting it
costs a worker up to 4,096 stalled heads for 75 s instead of 12, and the memory of
answers that are never read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from proxy.server.client_connections import Connection, Peer, without_zone

HEAD_TIMEOUT = 10.0
"""Seconds that a client may take over the head of a request, from its first byte."""

ANSWER_TIMEOUT = 30.0
"""Seconds in which a client must take the bytes of an answer that wait for it. Not one
byte alone: a client that takes a byte now and then would keep an answer for hours, and
the thread that reads the body of a request behind it."""

LOOK_EVERY = 2.0
"""Seconds between two looks at all connections."""

DISPATCHED_WITHIN = 5.0
"""Seconds after its last byte in which a request surely has a thread."""

log = logging.getLogger(__name__)


class RequestsInFlight:
    """The requests that a view answers at this moment, by their client's address.

    Granian does not tell a client's port.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._started: dict[object, tuple[str, float]] = {}

    @contextmanager
    def running(self, address: str) -> Iterator[None]:
        """Count a request from *address* while it is answered."""
        request = object()
        self._started[request] = address, self._monotonic()
        try:
            yield
        finally:
            del self._started[request]

    def started_by(self, address: str, moment: float) -> bool:
        """Return whether one from *address* that began by then is in flight."""
        address = without_zone(address)
        return any(
            without_zone(client) == address and started_at <= moment
            for client, started_at in list(self._started.values())
        )


class SilentClients:
    """Closes connections whose client is silent in the middle of something.

    Time is counted in looks at the connection, so that a process that was itself
    stopped for a while blames no client.
    """

    def __init__(
        self,
        connections: Callable[[], Iterable[Connection]],
        in_flight: RequestsInFlight,
    ) -> None:
        self._connections = connections
        self._in_flight = in_flight
        self._heads: dict[Peer, _Head] = {}
        self._answers: dict[Peer, _Answer] = {}

    def start(self) -> None:
        """Look from now on, in a thread. Never before a fork."""
        threading.Thread(target=self._look_for_ever, daemon=True).start()

    def look(self, now: float) -> None:
        """Look once, LOOK_EVERY after the last time, and close what is overdue."""
        heads: dict[Peer, _Head] = {}
        answers: dict[Peer, _Answer] = {}
        for connection in self._connections():
            peer = connection.peer
            if connection.queued:
                answers[peer] = answer = self._answers.get(peer, _NEW_ANSWER).seen(
                    connection
                )
                if answer.looks * LOOK_EVERY > ANSWER_TIMEOUT:
                    connection.abort()
            elif connection.is_unanswered:
                heads[peer] = head = self._heads.get(peer, _NEW_HEAD).seen(
                    connection, self._is_head(connection, now)
                )
                if head.looks * LOOK_EVERY > HEAD_TIMEOUT and head.is_sure:
                    connection.stop_reading()
        self._heads, self._answers = heads, answers

    def _is_head(self, connection: Connection, now: float) -> bool:
        """Return whether none of the requests in flight can be this connection's."""
        last_byte_at = now - connection.since_received
        return not self._in_flight.started_by(
            connection.peer[0], last_byte_at + DISPATCHED_WITHIN
        )

    def _look_for_ever(self) -> None:
        while True:
            time.sleep(LOOK_EVERY)
            try:
                self.look(time.monotonic())
            except Exception:
                log.exception("cannot look at the connections")


class _Head(NamedTuple):
    """What several *looks* in a row have seen of an unanswered connection.

    *sure* of them found no request in flight that could be its own. One is not
    enough: an answer can be on its way to the socket.
    """

    segments: int = -1
    looks: int = 0
    sure: int = 0

    @property
    def is_sure(self) -> bool:
        return self.sure > 1

    def seen(self, connection: Connection, is_head: bool) -> _Head:
        before = self if self.segments == connection.segments else _NEW_HEAD
        return _Head(
            connection.segments, before.looks + 1, before.sure + 1 if is_head else 0
        )


class _Answer(NamedTuple):
    """How many *looks* in a row have seen that bytes before *end* are not taken."""

    end: int = -1
    looks: int = 0

    def seen(self, connection: Connection) -> _Answer:
        if connection.acked < self.end:
            return _Answer(self.end, self.looks + 1)
        return _Answer(connection.acked + connection.queued, 1)


_NEW_HEAD, _NEW_ANSWER = _Head(), _Answer()
