"""The calls that have come, to be counted, looked at and waited for."""

import threading
from collections import Counter, deque
from dataclasses import asdict, dataclass

MOST_CALLS = 1000
MOST_PEOPLE = 200_000
HOUR = 3600.0


@dataclass(slots=True)
class Record:
    """One call as `GET /_sim/calls` shows it. It never holds a token.

    ``page`` is whose token it came with, None for nobody's.
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
    """A call's place in the row: the *nth* about its person, since the start.

    ``this_hour`` counts its Page's calls of the current hour, this one among them.
    """

    record: Record
    nth: int
    this_hour: int


class Ledger:
    """Counts every profile call when it arrives. Thread-safe and bounded.

    It remembers the last 1000 calls, and counts by person for the last 200 000
    people that were new.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: set[int] = set()
        self._is_closed = False
        self._start_over()

    def _start_over(self) -> None:
        self._total = 0
        self._by_person: Counter[str] = Counter()
        self._calls: deque[Record] = deque(maxlen=MOST_CALLS)
        self._hour = -1
        self._this_hour: Counter[str | None] = Counter()

    def arrive(self, record: Record) -> Arrival:
        """Count one call, and wake whoever waited for it."""
        with self._changed:
            self._total += 1
            self._by_person[record.igsid] += 1
            if len(self._by_person) > MOST_PEOPLE:
                del self._by_person[next(iter(self._by_person))]
            self._calls.append(record)
            self._running.add(id(record))
            self._count_hour(record)
            self._changed.notify_all()
            nth = self._by_person[record.igsid]
            return Arrival(record, nth, self._this_hour[record.page])

    def _count_hour(self, record: Record) -> None:
        hour = int(record.at // HOUR)
        if hour != self._hour:
            self._hour = hour
            self._this_hour.clear()
        self._this_hour[record.page] += 1

    def leave(self, record: Record, status: int | None) -> None:
        """Note how a call was answered; None when it got no answer."""
        with self._changed:
            self._running.discard(id(record))
            record.status = status

    def total(self, igsid: str | None = None) -> int:
        """How many calls have arrived, about *igsid* or about anybody."""
        with self._changed:
            return self._count(igsid)

    def _count(self, igsid: str | None) -> int:
        return self._total if igsid is None else self._by_person[igsid]

    def wait(self, igsid: str | None, calls: int, seconds: float) -> tuple[bool, int]:
        """Wait until *calls* calls have arrived; say if they did, and how many."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closed or self._count(igsid) >= calls, seconds
            )
            count = self._count(igsid)
            return count >= calls, count

    def overview(self) -> dict[str, object]:
        """What `GET /_sim/calls` answers."""
        with self._changed:
            return {
                "total": self._total,
                "running": len(self._running),
                "by_person": dict(self._by_person),
                "calls": [asdict(record) for record in self._calls],
            }

    def reset(self) -> None:
        """Forget all calls; those in progress stay in progress."""
        with self._changed:
            self._start_over()
            self._changed.notify_all()

    def close(self) -> None:
        """Send home whoever waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
