"""Give up a request body that does not come, and free the thread that waits for it.

A trick: granian's ``read`` waits for the client without a limit and cannot be
interrupted. But granian lets another thread answer, so one answers in the reader's
place. That alone frees nothing, because granian then waits for the rest of the body.
Nor does granian tell which of its sockets a request came from. So the answer itself
shows it: the connection to that address on which we had sent nothing for as long as the
limit, and have sent something now. Its reading half is shut, granian meets the end of
the stream, and the reader returns with what it has.

A client can hide by taking the answer to an earlier request late. So if a reader is not
free SILENT_AFTER its answer, all connections to that address are shut on which nothing
has been sent for as long: the reader's own, and perhaps some that are idle.

Its price is this file, a thread while bodies are read, and Linux. Deleting it costs all
webhooks while eight clients send bodies that never end.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from proxy.server.client_connections import Connection, Peer
from proxy.web.request_body import BodyRead
from proxy.web.responses import RawResponse

FIRST_ATTEMPT, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between the answer and closing its connection, and then, doubling, between
two attempts, each of which looks at all connections."""

SENT_WITHIN = 2.0
"""Seconds within which the answer has been sent."""

SILENT_AFTER = 30.0
"""Seconds after which a connection is shut that may be the reader's: longer than a
lookup takes, so that callers who wait for one are not meant."""

PRECISION = 1.0
"""Seconds by which the system's clock of a connection may differ from the limit."""

log = logging.getLogger(__name__)


class BodyTimeouts:
    """Limits the time for which threads wait for request bodies.

    *connections* returns those of this process's clients.
    """

    def __init__(
        self,
        connections: Callable[[], Iterable[Connection]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = connections
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._reads: set[_Read] = set()
        self._thread: threading.Thread | None = None

    @contextmanager
    def limit(
        self,
        protocol: Any,
        address: str,
        seconds: float,
        answer: Callable[[], RawResponse],
    ) -> Iterator[BodyRead]:
        """Limit a read of the request of *protocol*, granian's object, to *seconds*.

        After them the request, which came from *address*, gets *answer*, the read
        returns early, and the value says that it ``is_given_up``.
        """
        due_at = self._monotonic() + seconds
        read = _Read(protocol, address, answer, seconds, due_at)
        with self._changed:
            self._reads.add(read)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, daemon=True)
                self._thread.start()
        try:
            yield read
        finally:
            with self._changed:
                self._reads.discard(read)

    def give_up_overdue(self) -> None:
        """Answer, or free, every read whose time is up."""
        now = self._monotonic()
        with self._changed:
            overdue = [read for read in self._reads if read.due_at <= now]
            for read in overdue:
                read.is_given_up = True
                read.due_at = now + read.next_pause()
        for read in overdue:
            try:
                read.answer_or_free(now, self._connections)
            except Exception:  # Of one request: the others' time is up too.
                log.exception("cannot give up a request body")

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._reads:
                    self._changed.wait()
                due_at = min(read.due_at for read in self._reads)
            # Not woken by reads that begin meanwhile: they are due later.
            time.sleep(max(0.0, due_at - self._monotonic()))
            self.give_up_overdue()


class _Read:
    """One read of a body; *due_at* is when to answer it, and then when to free it."""

    def __init__(
        self,
        protocol: Any,
        address: str,
        answer: Callable[[], RawResponse],
        seconds: float,
        due_at: float,
    ) -> None:
        self._protocol = protocol
        self._address = address
        self._answer = answer
        self._silent_for = seconds - PRECISION
        self._silent: dict[Peer, int] | None = None
        self._answered_at = math.inf
        self._shut: set[Peer] = set()
        self._pause = FIRST_ATTEMPT / 2
        self.due_at = due_at
        self.is_given_up = False

    def next_pause(self) -> float:
        """Return for how many seconds to wait until the next attempt."""
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return self._pause

    def answer_or_free(
        self, now: float, connections: Callable[[], Iterable[Connection]]
    ) -> None:
        """Answer the request; when called again, close the answered connection."""
        ours = [each for each in connections() if each.is_from(self._address)]
        if self._silent is None:
            self._silent = {
                each.peer: each.segments
                for each in ours
                if each.since_sent >= self._silent_for
            }
            self._answered_at = now
            self._protocol.response_bytes(*self._answer())
            return
        since_answer = now - self._answered_at
        for connection in [
            *(self._answered(ours) if since_answer <= SENT_WITHIN else ()),
            *(
                each
                for each in ours
                if SILENT_AFTER <= min(since_answer, each.since_sent)
            ),
        ]:
            self._shut.add(connection.peer)
            connection.stop_reading()

    def _answered(self, ours: list[Connection]) -> list[Connection]:
        """Return the connection that the answer was sent on, perhaps with others."""
        assert self._silent is not None
        answered = [
            each
            for each in ours
            if each.segments > self._silent.get(each.peer, each.segments)
            and each.peer not in self._shut
        ]
        # Another client may have been silent, and been answered, in the same moment.
        # It has just asked, as few of those have that send no body.
        return [
            each for each in answered if each.since_received > PRECISION
        ] or answered
