"""The flights of one process: enter one, join one, wait for its result."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from proxy.domain.answer import Answer, Source
from proxy.domain.failures import GraphTimeout, LookupFailure
from proxy.domain.profile import Igsid
from proxy.storage.snapshot import Lease, Snapshot

FlightResult = Answer | LookupFailure | Snapshot | None
"""The result of a flight for its callers: an answer, a failure, or a snapshot of the
store, which each of them judges for itself. None: each must read the store again."""


class FlightRegistry:
    """The flights under way in this process, by person and lease."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Igsid, dict[Lease, Future[FlightResult]]] = {}

    def enter(
        self, igsid: Igsid, lease: Lease, *, any_lease: bool = False
    ) -> tuple[Future[FlightResult], bool]:
        """Return the flight under *lease*, and whether it has just been entered.

        With *any_lease*, any flight of this person will do.
        """
        with self._lock:
            flights = self._flights.setdefault(igsid, {})
            shared = flights.get(lease)
            if not shared and any_lease:
                shared = next(iter(flights.values()), None)
            if shared:
                return shared, False
            shared = flights[lease] = Future()
            return shared, True

    def leave(
        self,
        igsid: Igsid,
        lease: Lease,
        shared: Future[FlightResult],
        result: FlightResult,
    ) -> None:
        """Remove a flight, and give its *result* to those who wait for it."""
        with self._lock:
            flights = self._flights[igsid]
            del flights[lease]
            if not flights:
                del self._flights[igsid]
        shared.set_result(result)

    def wait(self, shared: Future[FlightResult], seconds: float) -> FlightResult:
        """Return the result of another's flight, or a failure after *seconds*."""
        try:
            result = shared.result(timeout=max(0.0, seconds))
        except TimeoutError:
            return GraphTimeout()
        if isinstance(result, Answer):
            return Answer(result.entry, Source.COLLAPSED, result.stored)
        return result
