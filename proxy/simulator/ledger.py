"""The calls that have arrived, which tests count, list and wait for."""

import threading
from collections import Counter, deque
from dataclasses import asdict, dataclass

MAX_CALLS = 1000
MAX_PEOPLE = 200_000
HOUR = 3600.0


@dataclass(slots=True)
class Record:
    """One call as `GET /_sim/calls` lists it; it never holds a token.

    ``page`` is the Page of its token, None if no Page has that token.
    """

    igsid: str
    path: str
    fields: list[str]
    authorization: str
    proof: bool
    at: float
    page: str | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """The number of a call: it is the *nth* about its person since the start.

    ``this_hour`` counts its Page's calls of the current hour, this one included.
    """

    record: Record
    nth: int
    this_hour: int


class Ledger:
    """Counts every profile call when it arrives; thread-safe and bounded.

    It keeps the last 1000 calls, and a count for each of the 200 000 people who
    were new last.
    """

    def __init__(self) -> None:
        self._apply_script = threading.Condition()
        self._running: set[int] = set()
        self._is_closed = False
        self._clear()

    def _clear(self) -> None:
        self._total = 0
        self._by_person: Counter[str] = Counter()
        self._calls: deque[Record] = deque(maxlen=MAX_CALLS)
        self._hour = -1
        self._this_hour: Counter[str | None] = Counter()

    def arrive(self, record: Record) -> Arrival:
        """Count one call, and wake the threads that wait for it."""
        with self._apply_script:
            self._total += 1
            self._by_person[record.igsid] += 1
            if len(self._by_person) > MAX_PEOPLE:
                del self._by_person[next(iter(self._by_person))]
            self._calls.append(record)
            self._running.add(id(record))
            self._count_hour(record)
            self._apply_script.notify_all()
            nth = self._by_person[record.igsid]
            return Arrival(record, nth, self._this_hour[record.page])

    def _count_hour(self, record: Record) -> None:
        hour = int(record.at // HOUR)
        if hour != self._hour:
            self._hour = hour
            self._this_hour.clear()
        self._this_hour[record.page] += 1

    def finish(self, record: Record, status: int | None) -> None:
        """Record the status of a call's answer; None if it got no answer."""
        with self._apply_script:
            self._running.discard(id(record))
            record.status = status

    def total(self, igsid: str | None = None) -> int:
        """Return how many calls have arrived, about *igsid* or in all."""
        with self._apply_script:
            return self._count(igsid)

    def _count(self, igsid: str | None) -> int:
        return self._total if igsid is None else self._by_person[igsid]

    def wait(self, igsid: str | None, calls: int, seconds: float) -> tuple[bool, int]:
        """Wait until *calls* calls have arrived; return if they did, and how many."""
        with self._apply_script:
            self._apply_script.wait_for(
                lambda: self._is_closed or self._count(igsid) >= calls, seconds
            )
            count = self._count(igsid)
            return count >= calls, count

    def overview(self) -> dict[str, object]:
        """Return the body of `GET /_sim/calls`."""
        with self._apply_script:
            return {
                "total": self._total,
                "running": len(self._running),
                "by_person": dict(self._by_person),
                "calls": [asdict(record) for record in self._calls],
            }

    def reset(self) -> None:
        """Delete all records; calls in progress stay in progress."""
        with self._apply_script:
            self._clear()
            self._apply_script.notify_all()

    def close(self) -> None:
        """End every wait."""
        with self._apply_script:
            self._is_closed = True
            self._apply_script.notify_all()
