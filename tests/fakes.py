"""Stand-ins for what reaches outside: Meta and the clock."""

from __future__ import annotations

from builders import NOW

from proxy.outcomes import GraphUnavailable, Igsid, LookupFailure, Outcome


class FakeClock:
    """The time, in epoch seconds, until a test turns it."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeGraph:
    """Meta, with what it says of each person; an exception is raised."""

    def __init__(self) -> None:
        self.outcomes: dict[Igsid, Outcome | LookupFailure] = {}
        self.asked: list[Igsid] = []

    @property
    def calls(self) -> int:
        return len(self.asked)

    def ask(self, igsid: Igsid, within: float) -> Outcome:
        self.asked.append(igsid)
        told = self.outcomes.get(igsid, GraphUnavailable())
        if isinstance(told, LookupFailure):
            raise told
        return told
