"""How many may call Meta, and wait for it, at once in this process."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import TypeVar

from proxy.coordination.thread_pool import CallerRunsPool
from proxy.domain.failures import Overloaded

SEAT_WAIT = 1.0
"""Seconds for which a caller who would lead waits for a seat."""

SERIALIZED = 1
"""Calls at once while the quota is nearly used up."""

CALLS_WITHOUT_STORE = 4
"""Calls to Meta at once, in each process, while the store is away."""

SEAT_WITHOUT_STORE = 0.25
"""Seconds for which such a call has its seat at least, about what Meta takes to answer
well; it can fail a hundred times as soon."""

T = TypeVar("T")


class Bulkhead:
    """Seats for calls, and room to wait for those who make or share them.

    Hits need neither, so they have threads left however slow Meta is.
    """

    def __init__(
        self,
        *,
        seats: int,
        waiters: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """*monotonic* is monotonic, in seconds."""
        self._monotonic = monotonic
        self._free = _Free(seats)
        self._calls = 0
        self._is_serialized = False
        self._changed = threading.Condition()
        self._waiters = threading.BoundedSemaphore(waiters)
        self._pool = CallerRunsPool(seats)

    def of_page(self) -> Bulkhead:
        """The same seats and room for another Page, narrow by a quota of its own."""
        other = copy(self)
        other._calls, other._is_serialized = 0, False
        return other

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Hold a thread for as long as an answer from Meta takes.

        Raises:
            Overloaded: too many do already. At once: waiting is the trouble.
        """
        if not self._waiters.acquire(blocking=False):
            raise Overloaded(retry_after=SEAT_WAIT)
        try:
            yield
        finally:
            self._waiters.release()

    def run_parallel(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """What *jobs* give that wait for Meta, as many at once as there are seats.

        The seats and the room that each of them needs it takes itself.

        Raises:
            Overloaded: too many wait already.
        """
        with self.waiting():
            return self._pool.run(jobs)

    @contextmanager
    def seat(self, within: float = SEAT_WAIT) -> Iterator[None]:
        """Be one of those who call Meta.

        Raises:
            Overloaded: no seat came free *within* so many seconds.
        """
        with self._changed:
            if not self._changed.wait_for(self._is_free, within):
                raise Overloaded(retry_after=SEAT_WAIT)
            self._free.seats -= 1
            self._calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._free.seats += 1
                self._calls -= 1
                self._changed.notify_all()

    @contextmanager
    def seat_without_store(self) -> Iterator[None]:
        """Be one of the few who call Meta while nobody can ask the gate.

        Few in a second too, also if Meta fails at once.

        Raises:
            Overloaded: there are as many already. At once.
        """
        free_from = self._free.without_store_from
        with self._changed:
            now = self._monotonic()
            seat = min(free_from, default=math.inf)
            if seat > now:
                raise Overloaded(retry_after=SEAT_WAIT)
            free_from.remove(seat)
        try:
            yield
        finally:
            with self._changed:
                free_from.append(now + SEAT_WITHOUT_STORE)

    def serialize(self, is_serialized: bool) -> None:
        """Let this Page's calls go one at a time, or side by side again."""
        if is_serialized is not self._is_serialized:
            with self._changed:
                self._is_serialized = is_serialized
                self._changed.notify_all()

    def _is_free(self) -> bool:
        if self._is_serialized and self._calls >= SERIALIZED:
            return False
        return self._free.seats > 0


class _Free:
    """Seats that nobody has, of whatever Page."""

    def __init__(self, seats: int) -> None:
        self.seats = seats
        self.without_store_from = [-math.inf] * CALLS_WITHOUT_STORE
