"""Promise 7: the service survives a dead store, and recovers by itself."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, takewhile
from typing import Any

import pytest

from proxy.coordination.bulkhead import CALLS_WITHOUT_STORE, SEAT_WITHOUT_STORE
from proxy.embedded.engine import find_binary
from proxy.storage.invalidation_listener import SILENT_FOR
from tests.helpers.processes import (
    ADA,
    BEN,
    EVE,
    all_at_once,
    wait_until,
)
from tests.helpers.redis_servers import RedisServer
from tests.helpers.stack import Stack, start_stack

CROWD, CALLERS = 300, 12
"""Stored people, and threads that ask for them."""

FROZEN_FOR = SILENT_FOR + 0.6
"""Seconds. No event outside the service shows when the near cache loses its trust."""


@pytest.fixture
def store() -> Iterator[RedisServer]:
    """A server that does not run yet."""
    settings = {"maxmemory-policy": "allkeys-lfu"}
    store = RedisServer("unix", settings=settings, binary=find_binary())
    yield store
    store.close()


@pytest.fixture
def stack(store: RedisServer, request) -> Iterator[Stack]:
    """A service whose store is down when it starts; a test may parametrize settings."""
    settings = getattr(request, "param", {})
    with start_stack(store.url, graph_timeout=5.0, settings=settings) as stack:
        yield stack


def entry_reads(stack: Stack) -> int:
    """How many reads of entries the store has answered."""
    calls: int = stack.redis.info("commandstats")["cmdstat_mget"]["calls"]
    return calls


def test_service_starts_without_a_store_and_finds_it_later(stack, store) -> None:
    """It logs that, answers from Meta, and answers erase and flush with 503."""
    wait_until(
        lambda: '"store away"' in stack.service.log(), 5, "it is logged at the start"
    )
    ready = stack.service.get("/readyz")
    away = stack.service.get(f"/profiles/{ADA}")
    erased = stack.service.request("DELETE", f"/admin/profiles/{ADA}")
    flushed = stack.service.request("POST", "/admin/flush", json={"what": "all"})

    assert ready.status_code == 200
    assert ready.json() == {"status": "degraded", "reasons": ["store_unavailable"]}
    assert away.status_code == 200
    assert away.headers["Cache-Status"] == (
        "profile-proxy; fwd=uri-miss; detail=store_unavailable"
    )
    for promise in (erased, flushed):
        assert promise.status_code == 503
        assert promise.json()["code"] == "store_unavailable"
        assert promise.headers["Retry-After"] == "1"

    store.start()

    assert stack.service.get("/readyz").json() == {"status": "ok", "reasons": []}
    assert (
        stack.service.get(f"/profiles/{ADA}")
        .headers["Cache-Status"]
        .endswith("fwd=uri-miss; stored")
    )
    assert "; hit" in stack.service.get(f"/profiles/{ADA}").headers["Cache-Status"]
    log = stack.service.log()
    assert (log.count('"store away"'), log.count('"store back"')) == (1, 1)


def test_readyz_reports_store_settings_that_may_break_a_promise(stack, store) -> None:
    """A restart could bring back erased people, and gates could be evicted."""
    store.start()
    stack.redis.config_set("save", "3600 1")
    stack.redis.config_set("maxmemory-policy", "volatile-ttl")

    expected = {
        "status": "degraded",
        "reasons": ["store_persists", "store_policy"],
    }
    # They are read every ten seconds, readyz asked or not.
    wait_until(lambda: stack.service.get("/readyz").json() == expected, 15, "reasons")


def test_service_reconnects_to_a_restarted_store(stack, store) -> None:
    """The old connections are dead; the next request opens new ones."""
    store.start()
    stack.service.get(f"/profiles/{ADA}")

    store.kill()
    store.start()
    answer = stack.service.get(f"/profiles/{ADA}")

    assert answer.headers["Cache-Status"] == "profile-proxy; fwd=uri-miss; stored"


def test_hanging_store_costs_one_timeout_and_no_answer(stack, store) -> None:
    """Frozen, it accepts and never replies: a quarter of a second, then Meta."""
    store.start()
    stack.service.get(f"/profiles/{ADA}")

    store.pause()
    answer = stack.service.get(f"/profiles/{EVE}")
    store.resume()

    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() < 1.5
    assert "; hit" in stack.service.get(f"/profiles/{ADA}").headers["Cache-Status"]


def test_store_that_stays_hung_does_not_cost_each_caller_a_timeout(
    stack, store
) -> None:
    """It costs two, and then one a second over all callers; erase answers 503."""
    store.start()
    stack.service.get(f"/profiles/{ADA}")

    store.pause()
    began = time.monotonic()
    answers = [stack.service.get(f"/profiles/{ADA}") for _ in range(20)]
    took = time.monotonic() - began
    erased = stack.service.request("DELETE", f"/admin/profiles/{ADA}")
    flushed = stack.service.request("POST", "/admin/flush", json={"what": "all"})
    degraded = stack.service.get("/readyz").json()
    store.resume()

    statuses = [answer.status_code for answer in answers]
    assert statuses[:CALLS_WITHOUT_STORE] == [200] * CALLS_WITHOUT_STORE
    assert {answer.json().get("code") for answer in answers} == {None, "overloaded"}
    assert {a.json()["detail"] for a in answers if a.status_code == 503} == {
        "The store cannot be reached, and without it a process makes few calls to Meta"
        " at once and per second. Meta was not asked."
    }
    assert took < 2.0
    assert {promise.status_code for promise in (erased, flushed)} == {503}
    assert degraded == {"status": "degraded", "reasons": ["store_unavailable"]}
    ok = {"status": "ok", "reasons": []}
    wait_until(lambda: stack.service.get("/readyz").json() == ok, 1.5, "all is well")
    assert "; hit" in stack.service.get(f"/profiles/{ADA}").headers["Cache-Status"]


@pytest.mark.parametrize(
    "stack", [{"NEAR_ENTRIES": "3", "OUTAGE_GRACE": "1s"}], indirect=True
)
def test_near_cache_obeys_its_size_and_the_outage_grace(stack, store) -> None:
    """NEAR_ENTRIES bounds it, and OUTAGE_GRACE its use while the store is down."""
    store.start()
    people = [str(1254002000000000 + n) for n in range(5)]

    def is_full() -> bool:
        return all(ask(i).ok for i in people) and stack.service.near_entries() == 3

    def ask(igsid: str) -> Any:
        return stack.service.get(f"/profiles/{igsid}")

    def source(igsid: str) -> str:
        return str(ask(igsid).headers["Cache-Status"])

    wait_until(is_full, 5, "the near cache is full")
    store.kill()

    assert "; hit" in source(people[-1])
    wait_until(lambda: "fwd=uri-miss" in source(people[-1]), 5, "it is unused")


def test_calls_to_meta_are_limited_while_the_store_is_away(stack) -> None:
    """Even if Meta answers at once; and none is made once it throttles."""
    began = time.monotonic()
    people = [str(1254002000000000 + n) for n in range(100)]
    statuses = Counter(stack.service.get(f"/profiles/{i}").status_code for i in people)
    took = time.monotonic() - began
    few = CALLS_WITHOUT_STORE * (1 + took / SEAT_WITHOUT_STORE)

    assert statuses.keys() == {200, 503}
    assert CALLS_WITHOUT_STORE <= stack.meta.calls() == statuses[200] <= few

    stack.meta.person(BEN, error={"code": 4})
    wait_until(
        lambda: stack.service.get(f"/profiles/{BEN}").json()["code"] == "throttled",
        5,
        "Meta is asked about Ben",
    )
    calls = stack.meta.calls()
    for igsid in [BEN, *people]:
        answer = stack.service.get(f"/profiles/{igsid}")
        assert answer.json()["code"] == "throttled"
        assert int(answer.headers["Retry-After"]) > 50
    assert stack.meta.calls() == calls


def test_store_that_hangs_for_a_while_causes_no_error(stack, store) -> None:
    """Local copies bridge the outage; when they expire the store is known to answer."""
    store.start()
    people = [str(1254002000000000 + n) for n in range(CROWD)]
    for _ in range(2):
        for igsid in people:
            stack.service.get(f"/profiles/{igsid}")
    over, statuses = threading.Event(), Counter[int]()

    def ask_on(first: int) -> None:
        for n in takewhile(lambda _: not over.is_set(), count(first, 7)):
            answer = stack.service.get(f"/profiles/{people[n % CROWD]}")
            statuses[answer.status_code] += 1

    with ThreadPoolExecutor(CALLERS) as pool:
        asking = [pool.submit(ask_on, first) for first in range(CALLERS)]
        try:
            wait_until(lambda: statuses[200] > CROWD, 10, "all were requested")
            before = entry_reads(stack)
            store.pause()
            time.sleep(FROZEN_FOR)
            store.resume()
            after = before + CROWD
            wait_until(lambda: entry_reads(stack) > after, 10, "all are read again")
        finally:
            over.set()

    for each in asking:
        each.result()
    assert set(statuses) == {200}, statuses


def test_store_that_dies_during_a_call_does_not_cost_the_answer(stack, store) -> None:
    """Leader and followers get Meta's answer, which is not stored.

    A caller that had not read the store before it died asks Meta without it.
    """
    store.start()
    stack.meta.person(ADA, wire="hang", times=1)

    def kill() -> None:
        stack.meta.await_calls(ADA)
        store.kill()
        stack.meta.order("release")

    answers = all_at_once(
        [kill, *[lambda: stack.service.get(f"/profiles/{ADA}")] * 10]
    )[1:]

    assert {answer.status_code for answer in answers} == {200}
    assert stack.meta.calls(ADA) <= 2


def test_callers_share_one_call_while_the_store_is_away(stack) -> None:
    """They do so within one process."""
    stack.meta.person(ADA, delay=0.5)

    answers = all_at_once([lambda: stack.service.get(f"/profiles/{ADA}")] * 30)

    assert {answer.status_code for answer in answers} == {200}
    assert stack.meta.calls(ADA) == 1
