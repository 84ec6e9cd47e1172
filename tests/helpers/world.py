"""A lookup wired to a fake store and a fake Meta, for tests of the use cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import fakeredis
import pytest

from proxy.config.settings import Settings
from proxy.coordination.allowance import Allowance
from proxy.coordination.bulkhead import Bulkhead
from proxy.coordination.single_flight import SingleFlight
from proxy.domain.answer import Answer
from proxy.domain.failures import GraphUnavailable
from proxy.domain.profile import DEFAULT_PAGE, Igsid, Profile, Reason
from proxy.observability.metrics import Metrics
from proxy.page_assembly import Parts, build_page
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.near_cache import NearCache
from tests.helpers.builders import (
    ADA,
    HOUR,
    MINUTE,
    a_profile,
    a_refusal,
)
from tests.helpers.fakes import FakeClock, FakeGraph, FakeTaskQueue, no_wait

BEN = Igsid("1254001234567891")

SETTINGS = Settings.from_env({"PROXY_PAGE_TOKEN": "EAACANARY"})
"""Every setting at its default."""


@dataclass
class World:
    """A lookup with the default settings, and all that it depends on."""

    redis: fakeredis.FakeRedis = field(default_factory=fakeredis.FakeRedis)
    graph: FakeGraph = field(default_factory=FakeGraph)
    clock: FakeClock = field(default_factory=FakeClock)
    background: FakeTaskQueue = field(default_factory=FakeTaskQueue)
    process_metrics: Metrics = field(default_factory=Metrics)
    seats: int = 100
    new_flight: Callable[..., SingleFlight] = SingleFlight
    near: NearCache | None = None

    def __post_init__(self) -> None:
        self.metrics = self.process_metrics.of_page("default")
        self.cache = cache = ProfileCache(host=self.redis, key_prefix="pp:")
        self.store = EntryStore(
            cache,
            DEFAULT_PAGE,
            near=self.near,
            count_error=self.process_metrics.count_store_error,
            sleep=no_wait,
        )
        self.bulkhead = Bulkhead(seats=self.seats, waiters=400, monotonic=self.clock)
        self.allowance = Allowance(
            cache,
            guard=self.store.guard,
            misses_per_minute=2,
            monotonic=self.clock,
        )
        self.lookup = build_page(
            Parts(
                settings=SETTINGS,
                cache=cache,
                store=self.store,
                allowance=self.allowance,
                bulkhead=self.bulkhead,
                metrics=self.metrics,
                submit=self.background.submit,
                new_flight=self.new_flight,
                now=self.clock,
                monotonic=self.clock,
                sleep=lambda seconds: self.sleep(seconds),
                jitter=lambda: 0.0,
            ),
            self.graph,
        )
        self.sleep: Callable[[float], None] = self.pass_time

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    def find(self, igsid: Igsid = ADA, client: str | None = None) -> Answer:
        return self.lookup.find(igsid, client=client)

    def has_stale(self, **overrides: object) -> None:
        """Ada's profile was fetched a while ago, and Meta has had no call since."""
        self.graph.outcomes[ADA] = a_profile(**overrides)
        self.find()
        self.clock.now += HOUR + MINUTE
        self.background.jobs.clear()
        self.graph.asked.clear()

    def counted(self) -> dict[tuple[str, str], int]:
        """The counts of answers, by source and outcome."""
        return {key: count for key, count in self.metrics.answers.items() if count}

    def forget_note(self, igsid: Igsid = ADA) -> None:
        self.redis.delete(f"pp:n:{{default:{igsid}}}")

    def age_note(self, igsid: Igsid, seconds: float) -> None:
        """Let time pass for a person's note alone."""
        key = f"pp:n:{{default:{igsid}}}"
        if (left := int(self.redis.pttl(key)) - round(seconds * 1000)) > 0:
            self.redis.pexpire(key, left)

    def open_gates(self) -> None:
        for key in self.redis.keys("pp:g:*"):
            self.redis.delete(key)

    def lapse(self, cause: str) -> None:
        """End the time for which a cause keeps the gate closed."""
        key = f"pp:g:{{default}}:{cause}"
        assert self.redis.hexists(key, "until")
        self.redis.hset(key, "until", 1)

    def hide_people(self, number: int) -> list[Igsid]:
        """So many different people whom Meta does not show (100/33)."""
        people = [Igsid(f"12540{n:02d}") for n in range(number)]
        for igsid in people:
            refusal = a_refusal(igsid=igsid, reason=Reason.UNAVAILABLE)
            self.graph.outcomes[igsid] = refusal
        return people

    def fail_until_closed(self) -> None:
        """Five calls that Meta does not answer close the gate."""
        for n in range(5):
            with pytest.raises(GraphUnavailable):
                self.find(Igsid(f"99900{n}"))
        self.graph.asked.clear()


def name_of(answer: Answer) -> str | None:
    assert isinstance(answer.entry.outcome, Profile)
    return answer.entry.outcome.name
