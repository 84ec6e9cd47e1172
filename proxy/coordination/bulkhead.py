"""Limit the concurrent calls to Meta, and the threads that wait, in this process."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from proxy.coordination.thread_pool import CallerRunsPool
from proxy.domain.failures import Overloaded

SEAT_WAIT = 1.0
"""Seconds for which a caller waits for a seat before it leads a flight."""

SERIALIZED = 1
"""A Page's concurrent calls while its quota is nearly used up."""

CALLS_WITHOUT_STORE = 4
"""Concurrent calls to Meta, in each process, while the store is away."""

SEAT_WITHOUT_STORE = 0.25
"""Minimum seconds for which such a call holds its seat. About a normal response time,
so that instant failures, a hundred times as fast, do not become a burst of calls."""

TOO_MANY_WITHOUT_STORE = (
    "the store cannot be reached, and without it a process makes few calls to Meta at"
    " once and per second"
)
"""Why such a call is refused, which need not be concurrent with any other."""

T = TypeVar("T")


class Bulkhead:
    """Seats for one Page's calls to Meta, and a limit on the threads that wait.

    Hits need neither, so they have threads left however slow Meta is.
    """

    def __init__(
        self,
        *,
        seats: int,
        waiters: int,
        monotonic: Callable[[], float] = time.monotonic,
        shared: _SharedSeats | None = None,
    ) -> None:
        """*monotonic* is in seconds; *shared* are the seats of other Pages, if any."""
        self._shared = shared or _SharedSeats(seats, waiters, monotonic)
        self._waiters = self._shared.free_waiters
        self._changed = self._shared.changed
        self._pool = self._shared.pool
        self._seated = 0
        self._calls = 0
        self._is_serialized = False

    def of_page(self) -> Bulkhead:
        """Return a bulkhead for another Page, with the same seats and waiters.

        Only `serialize` is each Page's own, because its quota is.
        """
        shared = self._shared
        return Bulkhead(seats=shared.seats, waiters=shared.waiters, shared=shared)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Hold a thread for as long as an answer from Meta takes.

        Raises:
            Overloaded: too many threads wait. At once: waiting is the trouble.
        """
        if not self._waiters.acquire(blocking=False):
            raise Overloaded(retry_after=SEAT_WAIT)
        try:
            yield
        finally:
            self._waiters.release()

    def run_parallel(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """Run *jobs* that wait for Meta, as many at once as there are seats.

        Returns their results, in order. Each job takes the seat that it needs itself.

        Raises:
            Overloaded: too many threads wait already.
        """
        with self.waiting():
            return self._pool.run(jobs)

    @contextmanager
    def seat(self, within: float = SEAT_WAIT) -> Iterator[None]:
        """Hold a seat during one call to Meta.

        Raises:
            Overloaded: no seat came free *within* so many seconds.
        """
        with self._changed:
            if not self._changed.wait_for(self._is_free, within):
                raise Overloaded(retry_after=SEAT_WAIT)
            self._shared.free_seats -= 1
            self._seated += 1
        try:
            yield
        finally:
            with self._changed:
                self._shared.free_seats += 1
                self._seated -= 1
                self._changed.notify_all()

    @contextmanager
    def turn(self, within: float = SEAT_WAIT) -> Iterator[None]:
        """Make one call to Meta from a seat, alone while calls are serialized.

        A seat is taken before the usage of the quota is known, so many callers may
        have one. Those for whom it is nearly used up wait here, for each other and for
        calls that began before.

        Raises:
            Overloaded: their turn did not come *within* so many seconds.
        """
        with self._changed:
            if not self._changed.wait_for(self._may_call, within):
                raise Overloaded(retry_after=SEAT_WAIT)
            self._calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._calls -= 1
                if self._is_serialized:
                    self._changed.notify_all()

    @contextmanager
    def seat_without_store(self) -> Iterator[None]:
        """Hold one of the few seats for calls while the store, and the gate, is away.

        Few calls per second too, also if Meta fails at once.

        Raises:
            Overloaded: all of them are taken. At once.
        """
        free_from = self._shared.free_without_store_from
        with self._changed:
            now = self._shared.monotonic()
            seat = min(free_from, default=math.inf)
            if seat > now:
                raise Overloaded(retry_after=SEAT_WAIT, what=TOO_MANY_WITHOUT_STORE)
            free_from.remove(seat)
        try:
            yield
        finally:
            with self._changed:
                free_from.append(now + SEAT_WITHOUT_STORE)

    def serialize(self, is_serialized: bool) -> None:
        """Let this Page's calls go one at a time, or in parallel again.

        Callers that have a seat already are asked for a `turn`.
        """
        if is_serialized is not self._is_serialized:
            with self._changed:
                self._is_serialized = is_serialized
                self._changed.notify_all()

    def _is_free(self) -> bool:
        if self._is_serialized and self._seated >= SERIALIZED:
            return False
        return self._shared.free_seats > 0

    def _may_call(self) -> bool:
        return not self._is_serialized or self._calls < SERIALIZED


class _SharedSeats:
    """The seats, the waiters and the threads that all Pages of a process share."""

    def __init__(
        self, seats: int, waiters: int, monotonic: Callable[[], float]
    ) -> None:
        self.seats = seats
        self.waiters = waiters
        self.monotonic = monotonic
        self.changed = threading.Condition()
        self.free_seats = seats
        self.free_waiters = threading.BoundedSemaphore(waiters)
        self.free_without_store_from = [-math.inf] * CALLS_WITHOUT_STORE
        self.pool = CallerRunsPool(seats)
