"""Fakes of Meta, the clock and the task queue."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from proxy.domain.answer import FetchResult
from proxy.domain.failures import GraphUnavailable, LookupFailure
from proxy.domain.profile import Igsid, Outcome
from tests.helpers.builders import NOW


class FakeClock:
    """A clock in epoch seconds, which only a test moves."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeGraph:
    """Meta, with an outcome for each person."""

    def __init__(self) -> None:
        self.outcomes: dict[Igsid, Outcome | LookupFailure] = {}
        self.usage_percent: float | None = None
        self.token = "0badcafe"
        self.asked: list[Igsid] = []

    @property
    def calls(self) -> int:
        return len(self.asked)

    def token_digest(self) -> str:
        return self.token

    def fetch(self, igsid: Igsid, within: float) -> FetchResult:
        self.asked.append(igsid)
        outcome = self.outcomes.get(igsid) or GraphUnavailable()
        return FetchResult(outcome, self.usage_percent, self.token)


class FakeTaskQueue:
    """A task queue that keeps its jobs until ``run()``."""

    def __init__(self) -> None:
        self.jobs: dict[Hashable, Callable[[], None]] = {}

    def submit(self, name: Hashable, job: Callable[[], None]) -> bool:
        return self.jobs.setdefault(name, job) is job

    def run(self) -> None:
        while self.jobs:
            self.jobs.pop(next(iter(self.jobs)))()


def no_wait(seconds: float) -> None:
    """Replace ``time.sleep`` where no other thread has to be waited for."""
