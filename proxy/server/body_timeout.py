"""Give up a request body that does not come, and free the thread that waits for it.

A trick: granian's ``read`` waits for the client without a limit and cannot be
interrupted. But granian lets another thread answer, so one answers in the reader's
place. That alone frees nothing, because granian then waits for the rest of the body.
Nor does granian tell which of its sockets a request came from. So the answer itself
shows it: the connection that had sent nothing for as long as the limit, and has sent
something now. Its reading half is shut, granian meets the end of the stream, and the
reader returns with what it has.

Its price is this file, a thread while bodies are read, and Linux. Deleting it costs all
webhooks while eight clients send bodies that never end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from proxy.server.client_connections import Connection, Peer
from proxy.web.request_body import BodyRead
from proxy.web.responses import RawResponse

RETRY_EVERY = 0.1
"""Seconds between the answer and closing its connection, and between two attempts."""

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
        self, protocol: Any, seconds: float, answer: Callable[[], RawResponse]
    ) -> Iterator[BodyRead]:
        """Limit a read of the request of *protocol*, granian's object, to *seconds*.

        After them the request gets *answer*, the read returns early, and the value
        says that it ``is_given_up``.
        """
        read = _Read(protocol, answer, seconds, self._monotonic() + seconds)
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
                read.due_at = now + RETRY_EVERY
        for read in overdue:
            read.answer_or_free(self._connections)

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._reads:
                    self._changed.wait()
                due_at = min(read.due_at for read in self._reads)
            # Not woken by reads that begin meanwhile: they are due later.
            time.sleep(max(0.0, due_at - self._monotonic()))
            try:
                self.give_up_overdue()
            except Exception:
                log.exception("cannot give up a request body")


class _Read:
    """One read of a body; *due_at* is when to answer it, and then when to free it."""

    def __init__(
        self,
        protocol: Any,
        answer: Callable[[], RawResponse],
        seconds: float,
        due_at: float,
    ) -> None:
        self._protocol = protocol
        self._answer = answer
        self._silent_for = seconds - PRECISION
        self._silent: dict[Peer, int] | None = None
        self.due_at = due_at
        self.is_given_up = False

    def answer_or_free(self, connections: Callable[[], Iterable[Connection]]) -> None:
        """Answer the request; when called again, close the answered connection."""
        if self._silent is None:
            self._silent = {
                connection.peer: connection.segments
                for connection in connections()
                if connection.since_sent >= self._silent_for
            }
            self._protocol.response_bytes(*self._answer())
            return
        for connection in connections():
            sent_before = self._silent.get(connection.peer)
            if sent_before is not None and connection.segments > sent_before:
                connection.stop_reading()
