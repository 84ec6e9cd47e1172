"""The looks for reasons of a degradation: shared, logged at a change, a metric."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.coordination.gate_facts import GateFacts
from proxy.domain.failures import Cause, StoreUnavailable
from proxy.lookup.health import Health
from proxy.observability.metrics import Metrics
from tests.helpers.prometheus import total


class World:
    """A service whose store, gates and files are as a test says."""

    def __init__(self, *, is_reporter: bool = True) -> None:
        self.metrics = Metrics()
        self.files: list[str] = []
        self.warnings: list[str] = []
        self.recent: set[str] = set()
        self.away: StoreUnavailable | None = None
        self.facts = {"default": GateFacts((), False), "shop": GateFacts((), False)}
        self.looks = 0
        page = SimpleNamespace(
            check_store=self._check_store,
            store_warnings=lambda: self.warnings,
            store=SimpleNamespace(recent_reasons=lambda: self.recent),
        )
        pages: Any = SimpleNamespace(
            any=page,
            all=lambda: dict.fromkeys(self.facts, page),
            gate_facts=lambda: self.facts,
        )
        self.health = Health(
            pages,
            lambda: self.files,
            self.metrics.degraded,
            is_reporter=lambda: is_reporter,
        )

    def _check_store(self) -> None:
        self.looks += 1
        if self.away:
            raise self.away

    def degraded(self, reason: str) -> float | None:
        text = self.metrics.exposition(None).decode()
        return total(text, "degraded", reason=reason)


@pytest.fixture
def world() -> World:
    return World()


def test_cause_of_a_named_page_has_its_name(world) -> None:
    """A throttle is no reason: it heals by itself."""
    world.facts["shop"] = GateFacts((Cause.THROTTLED, Cause.TOKEN_REJECTED), True)
    world.facts["default"] = GateFacts((Cause.UNAVAILABLE,), False)

    assert world.health.look() == [
        "graph_unavailable",
        "token_rejected:shop",
        "lacks_permission:shop",
    ]


@pytest.mark.parametrize(
    ("reason", "reported"),
    [
        ("store_unavailable", ["api_keys_file_bad", "store_unavailable"]),
        ("store_full", ["api_keys_file_bad", "store_full", "store_policy"]),
    ],
)
def test_store_that_answers_is_asked_for_its_settings(world, reason, reported) -> None:
    """One that is away is not asked again in the same look."""
    world.files, world.warnings = ["api_keys_file_bad"], ["store_policy"]
    world.away = StoreUnavailable(reason)

    assert world.health.look() == reported


def test_store_that_was_full_a_moment_ago_still_is(world) -> None:
    """It would flap, because it has room for some writes."""
    world.recent = {"store_full"}

    assert world.health.look() == ["store_full"]


def test_metric_follows_the_reasons(world) -> None:
    """1 while there, 0 before and after; other reasons stay 0."""
    world.health.look()
    before = world.degraded("token_rejected:shop")
    world.facts["shop"] = GateFacts((Cause.TOKEN_REJECTED,), False)
    world.health.look()
    there = world.degraded("token_rejected:shop"), world.degraded("token_rejected")
    world.facts["shop"] = GateFacts((), False)
    world.health.look()

    assert (before, there) == (0, (1, 0))
    assert world.degraded("token_rejected:shop") == 0


@pytest.mark.parametrize("is_reporter", [True, False])
def test_change_is_logged_once_by_one_worker(is_reporter, caplog) -> None:
    """At the start only if there is a reason."""
    caplog.set_level("INFO")
    world = World(is_reporter=is_reporter)
    for warnings in ([], ["clock_skew"], ["clock_skew"], []):
        world.warnings = warnings
        world.health.look()

    logged = [(record.message, record.reasons) for record in caplog.records]
    expected = [("degraded", ["clock_skew"]), ("no longer degraded", [])]
    assert logged == (expected if is_reporter else [])


def test_other_order_of_the_reasons_is_no_change(world, caplog) -> None:
    """A store that has just failed is named last, and one that fails now first."""
    world.warnings, world.away = ["store_policy"], StoreUnavailable("store_auth")
    first = world.health.look()
    world.away, world.recent = None, {"store_auth"}

    assert world.health.look() == [*reversed(first)]
    assert [record.message for record in caplog.records] == ["degraded"]


def test_callers_that_come_during_a_look_share_the_next(world) -> None:
    """However many balancers ask a store that hangs."""
    entered, goes_on = threading.Event(), threading.Event()
    came = threading.Semaphore(0)

    def now() -> float:
        came.release()
        return time.monotonic()

    world.health._monotonic = now

    def hang() -> None:
        world.looks += 1
        entered.set()
        assert goes_on.wait(10)

    world.health._pages.any.check_store = hang
    threads = [threading.Thread(target=world.health.look) for _ in range(9)]
    threads[0].start()
    assert entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    for _ in range(len(threads) + 1):  # The first one reads the clock twice.
        assert came.acquire(timeout=10)
    goes_on.set()
    for thread in threads:
        thread.join(10)

    assert world.looks == 2
