"""Promise 7: a dead store does not kill the service, and it recovers by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from proxy.coordination.bulkhead import CALLS_WITHOUT_STORE, SEAT_WITHOUT_STORE
from proxy.embedded.engine import find_binary
from proxy.storage.invalidation_listener import SILENT_FOR
from tests.helpers.processes import (
    ADA,
    BEN,
    EVE,
    PAGE_TOKEN,
    Service,
    SimulatedMeta,
    all_at_once,
    wait_until,
)

CROWD, CALLERS = 300, 12
"""People who are known, and who ask about them side by side."""

FROZEN_FOR = SILENT_FOR + 0.6
"""Seconds; nothing outside tells when the connection of the copies is given up."""


class Engine:
    """A Redis on a socket that we start, stop and freeze as we like."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.client = redis.Redis(unix_socket_path=str(self.socket))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                find_binary(),
                "--port",
                "0",
                "--unixsocket",
                str(self.socket),
                "--save",
                "",
                "--appendonly",
                "no",
                "--maxmemory-policy",
                "allkeys-lfu",
                "--dir",
                str(self.folder),
            ],
            stdout=subprocess.DEVNULL,
        )
        wait_until(self._answers, 5, "the engine answers")

    def stop(self) -> None:
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None
        self.socket.unlink(missing_ok=True)

    def freeze(self) -> None:
        assert self.process
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        os.kill(self.process.pid, signal.SIGCONT)

    def reads(self) -> int:
        """How many readings it has answered: one for each look."""
        calls: int = self.client.info("commandstats")["cmdstat_mget"]["calls"]
        return calls

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


@pytest.fixture
def world(tmp_path: Path, request) -> Iterator[SimpleNamespace]:
    """A service whose store is not there at its start; with settings, if a test has."""
    store = Engine(tmp_path)
    meta = SimulatedMeta()
    service = Service(
        PAGE_TOKEN=PAGE_TOKEN,
        GRAPH_URL=meta.url,
        STORE_URL=store.url,
        WORKERS="1",
        **getattr(request, "param", {}),
    )
    yield SimpleNamespace(store=store, meta=meta, service=service)
    service.stop()
    store.stop()
    meta.close()


def test_a_store_that_is_not_there_at_start_is_lived_without(world) -> None:
    """It says so, answers from Meta, promises nothing; and heals by itself."""
    wait_until(
        lambda: '"store away"' in world.service.log(), 5, "it is said at the start"
    )
    ready = world.service.get("/readyz")
    away = world.service.get(f"/profiles/{ADA}")
    erased = world.service.request("DELETE", f"/admin/profiles/{ADA}")
    flushed = world.service.request("POST", "/admin/flush", json={"what": "all"})

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

    world.store.start()

    assert world.service.get("/readyz").json() == {"status": "ok", "reasons": []}
    assert (
        world.service.get(f"/profiles/{ADA}")
        .headers["Cache-Status"]
        .endswith("fwd=uri-miss; stored")
    )
    assert "; hit" in world.service.get(f"/profiles/{ADA}").headers["Cache-Status"]
    log = world.service.log()
    assert (log.count('"store away"'), log.count('"store back"')) == (1, 1)


def test_a_store_that_may_break_a_promise_is_told_of(world) -> None:
    """It serves; but a restart would bring back the erased, and gates be evicted."""
    world.store.start()
    world.store.client.config_set("save", "3600 1")
    world.store.client.config_set("maxmemory-policy", "volatile-ttl")

    ready = world.service.get("/readyz")

    assert ready.status_code == 200
    assert ready.json() == {
        "status": "degraded",
        "reasons": ["store_evicts_gates", "store_persists"],
    }


def test_a_store_that_is_restarted_is_found_again(world) -> None:
    """Connections of before are dead; the next request makes new ones."""
    world.store.start()
    world.service.get(f"/profiles/{ADA}")

    world.store.stop()
    world.store.start()
    answer = world.service.get(f"/profiles/{ADA}")

    assert answer.headers["Cache-Status"] == "profile-proxy; fwd=uri-miss; stored"


def test_a_store_that_hangs_costs_a_timeout_and_not_the_answer(world) -> None:
    """Frozen, it accepts and says nothing: a quarter of a second, then Meta."""
    world.store.start()
    world.service.get(f"/profiles/{ADA}")

    world.store.freeze()
    answer = world.service.get(f"/profiles/{EVE}")
    world.store.thaw()

    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() < 1.5
    assert "; hit" in world.service.get(f"/profiles/{ADA}").headers["Cache-Status"]


def test_a_store_that_goes_on_hanging_does_not_cost_each_a_timeout(world) -> None:
    """Two of them, and then one a second, whoever asks; erase and flush say 503."""
    world.store.start()
    world.service.get(f"/profiles/{ADA}")

    world.store.freeze()
    began = time.monotonic()
    answers = [world.service.get(f"/profiles/{ADA}") for _ in range(20)]
    took = time.monotonic() - began
    erased = world.service.request("DELETE", f"/admin/profiles/{ADA}")
    flushed = world.service.request("POST", "/admin/flush", json={"what": "all"})
    degraded = world.service.get("/readyz").json()
    world.store.thaw()

    statuses = [answer.status_code for answer in answers]
    assert statuses[:CALLS_WITHOUT_STORE] == [200] * CALLS_WITHOUT_STORE
    assert {answer.json().get("code") for answer in answers} == {None, "overloaded"}
    assert took < 2.0
    assert {promise.status_code for promise in (erased, flushed)} == {503}
    assert degraded == {"status": "degraded", "reasons": ["store_unavailable"]}
    ok = {"status": "ok", "reasons": []}
    wait_until(lambda: world.service.get("/readyz").json() == ok, 1.5, "all is well")
    assert "; hit" in world.service.get(f"/profiles/{ADA}").headers["Cache-Status"]


@pytest.mark.parametrize(
    "world", [{"NEAR_ENTRIES": "3", "OUTAGE_GRACE": "1s"}], indirect=True
)
def test_there_are_as_many_copies_and_for_as_long_as_the_operator_says(world) -> None:
    """No more of them, and no longer than that while the store is away."""
    world.store.start()
    people = [str(1254002000000000 + n) for n in range(5)]

    def is_full() -> bool:
        return all(ask(i).ok for i in people) and world.service.copies() == 3

    def ask(igsid: str) -> Any:
        return world.service.get(f"/profiles/{igsid}")

    def source(igsid: str) -> str:
        return str(ask(igsid).headers["Cache-Status"])

    wait_until(is_full, 5, "there is no room for more copies")
    world.store.stop()

    assert "; hit" in source(people[-1])
    wait_until(lambda: "fwd=uri-miss" in source(people[-1]), 5, "it has gone")


def test_meta_is_not_run_over_while_the_store_is_away(world) -> None:
    """By an answer that comes at once; and not asked at all once it throttles."""
    began = time.monotonic()
    people = [str(1254002000000000 + n) for n in range(100)]
    told = Counter(world.service.get(f"/profiles/{i}").status_code for i in people)
    took = time.monotonic() - began
    few = CALLS_WITHOUT_STORE * (1 + took / SEAT_WITHOUT_STORE)

    assert told.keys() == {200, 503}
    assert CALLS_WITHOUT_STORE <= world.meta.calls() == told[200] <= few

    world.meta.person(BEN, error={"code": 4})
    wait_until(
        lambda: world.service.get(f"/profiles/{BEN}").json()["code"] == "throttled",
        5,
        "Meta is asked about Ben",
    )
    calls = world.meta.calls()
    for igsid in [BEN, *people]:
        answer = world.service.get(f"/profiles/{igsid}")
        assert answer.json()["code"] == "throttled"
        assert int(answer.headers["Retry-After"]) > 50
    assert world.meta.calls() == calls


def test_a_store_that_answers_again_costs_nobody_an_error(world) -> None:
    """Copies bridge the time, and when they go it is known that it answers."""
    world.store.start()
    people = [str(1254002000000000 + n) for n in range(CROWD)]
    for _ in range(2):
        for igsid in people:
            world.service.get(f"/profiles/{igsid}")
    over, statuses = threading.Event(), Counter[int]()

    def ask_on(first: int) -> None:
        for n in takewhile(lambda _: not over.is_set(), count(first, 7)):
            answer = world.service.get(f"/profiles/{people[n % CROWD]}")
            statuses[answer.status_code] += 1

    with ThreadPoolExecutor(CALLERS) as pool:
        asking = [pool.submit(ask_on, first) for first in range(CALLERS)]
        try:
            wait_until(lambda: statuses[200] > CROWD, 10, "all are asked about")
            read = world.store.reads()
            world.store.freeze()
            time.sleep(FROZEN_FOR)
            world.store.thaw()
            force = read + CROWD
            wait_until(lambda: world.store.reads() > force, 10, "all are read anew")
        finally:
            over.set()

    for each in asking:
        each.result()
    assert set(statuses) == {200}, statuses


def test_a_store_that_dies_during_a_call_does_not_cost_its_answer(world) -> None:
    """What Meta said is told, and not stored; those who waited are told it too.

    Whoever had not looked at the store yet when it died asks Meta without it.
    """
    world.store.start()
    world.meta.person(ADA, wire="hang", times=1)

    def kill() -> None:
        world.meta.await_calls(ADA)
        world.store.stop()
        world.meta.order("release")

    answers = all_at_once(
        [kill, *[lambda: world.service.get(f"/profiles/{ADA}")] * 10]
    )[1:]

    assert {answer.status_code for answer in answers} == {200}
    assert world.meta.calls(ADA) <= 2


def test_while_the_store_is_away_callers_still_share_a_call(world) -> None:
    """Within the process; and only a few calls at once are let through."""
    world.meta.person(ADA, delay=0.5)

    answers = all_at_once([lambda: world.service.get(f"/profiles/{ADA}")] * 30)

    assert {answer.status_code for answer in answers} == {200}
    assert world.meta.calls(ADA) == 1
