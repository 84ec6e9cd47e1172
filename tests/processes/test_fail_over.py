"""Promises 5 and 7 where the store fails over, or loses a part of itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import redis
import requests

from proxy.coordination.bulkhead import SEAT_WITHOUT_STORE
from tests.helpers.processes import (
    ADA,
    EVE,
    PAGE_TOKEN,
    Service,
    SimulatedMeta,
    crowd,
    wait_until,
)
from tests.helpers.redis_servers import Nodes, Watched, client_of

NEAR = "profile_proxy_near_looks_total{"

FAILS_OVER_WITHIN = 15
"""Seconds; it takes two, but three Sentinels may have to vote again."""


@pytest.fixture(scope="module")
def running(whole: Watched) -> Iterator[SimpleNamespace]:
    """Two instances, a master with its replica, and three Sentinels."""
    meta = SimulatedMeta()
    settings = {
        "PAGE_TOKEN": PAGE_TOKEN,
        "GRAPH_URL": meta.url,
        "GRAPH_TIMEOUT": "15s",  # a call that hangs outlives any fail-over
        "STORE_URL": whole.url,
        "WORKERS": "1",
    }
    one, other = Service(**settings), Service(**settings)
    yield SimpleNamespace(
        store=whole, meta=meta, one=one, other=other, settings=settings
    )
    one.stop()
    other.stop()
    meta.close()


@pytest.fixture
def stack(running: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """The same, whole and empty; it is mended afterwards."""
    running.store.mend()
    wait_until(lambda: is_well(running), 10, "both instances are well")
    running.one.flush()
    running.meta.order("reset")
    yield running
    running.store.mend()


def is_well(stack: SimpleNamespace) -> bool:
    return all(reasons(service) == [] for service in (stack.one, stack.other))


def reasons(service: Service) -> list[str]:
    answer = service.get("/readyz")
    assert answer.status_code == 200
    return list(answer.json()["reasons"])


def cache_status(service: Service, igsid: str) -> str:
    answer = service.get(f"/profiles/{igsid}")
    assert answer.status_code == 200, answer.text
    return str(answer.headers["Cache-Status"])


def fail_over(store: Watched, how: str) -> None:
    """Kill or pause the master, and wait until its replica is in its place."""
    old = store.master
    getattr(old, how)()
    wait_until(lambda: store.is_led_by_another_than(old), FAILS_OVER_WITHIN, "another")


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_a_fail_over_in_mid_fetch_is_not_noticed(stack, how: str) -> None:
    """All are answered, by one call for each instance at most; and it is over then."""
    stack.meta.person(ADA, wire="hang", times=2)
    with client_of(stack.store.url) as raw, ThreadPoolExecutor(16) as pool:
        raw.config_resetstat()
        leading = ask_for_ada(pool, stack.one)
        wait_until(lambda: looks(raw) >= len(leading), 10, "all have joined")
        following = ask_for_ada(pool, stack.other)
        wait_until(lambda: looks(raw) > len(leading), 10, "they look, too")

        fail_over(stack.store, how)
        stack.meta.order("release")
        answers = [asked.result(30) for asked in leading + following]

    assert {answer.status_code for answer in answers} == {200}
    assert stack.meta.calls(ADA) <= 2
    wait_until(lambda: is_well(stack), 5, "both have found the new master")
    cache_status(stack.one, EVE)
    assert "; hit" in cache_status(stack.other, EVE)


def ask_for_ada(
    pool: ThreadPoolExecutor, service: Service
) -> list[Future[requests.Response]]:
    return [pool.submit(service.get, f"/profiles/{ADA}") for _ in range(8)]


def looks(raw: redis.Redis) -> int:
    """How often somebody has looked at a person."""
    return int(raw.info("commandstats").get("cmdstat_mget", {}).get("calls", 0))


def test_it_says_that_it_is_degraded_and_recovers_by_itself(stack) -> None:
    """Meanwhile people are answered, though nothing is kept."""
    cache_status(stack.one, ADA)
    stack.store.master.kill()

    assert reasons(stack.one) == ["store_unavailable"]
    assert cache_status(stack.one, ADA).endswith("detail=store_unavailable")
    erased = stack.one.request("DELETE", f"/admin/profiles/{ADA}")
    assert (erased.status_code, erased.json()["code"]) == (503, "store_unavailable")

    wait_until(lambda: reasons(stack.one) == [], FAILS_OVER_WITHIN, "it is well")
    assert "; hit" in cache_status(stack.one, ADA)


def test_an_answered_erase_is_not_undone_by_a_fail_over(stack) -> None:
    """Every one that got a receipt before the master died has gone for good."""
    people = [crowd(number) for number in range(40)]
    for igsid in people:
        cache_status(stack.one, igsid)

    receipts = []
    for number, igsid in enumerate(people):
        if number == 30:
            [replica] = stack.store.replicas
            replica.pause()
        answer = stack.one.request("DELETE", f"/admin/profiles/{igsid}")
        if answer.status_code == 200:
            receipts.append(answer.json()["igsid"])
    stack.store.master.kill()
    replica.resume()
    wait_until(lambda: reasons(stack.one) == [], FAILS_OVER_WITHIN, "it is well")

    assert receipts == people[:30]
    for igsid in receipts:
        assert stack.one.get(f"/admin/profiles/{igsid}").json()["entry"] is None


def test_an_answered_erase_is_not_undone_by_one_that_is_ordered(stack) -> None:
    """The old master goes on for a while, and its replica has left it by then."""
    people = [crowd(number) for number in range(150)]
    for igsid in people:
        cache_status(stack.one, igsid)
    old = stack.store.master

    def erase(igsid: str) -> int:
        return stack.one.request("DELETE", f"/admin/profiles/{igsid}").status_code

    with stack.store.hearing_as_seldom_as_ever(), ThreadPoolExecutor(32) as pool:
        stack.store.order_fail_over()
        asked = {}
        for igsid in people:
            asked[igsid] = pool.submit(erase, igsid)
            time.sleep(0.02)
        has_moved = stack.store.is_led_by_another_than
        wait_until(lambda: has_moved(old), FAILS_OVER_WITHIN, "another leads")
    told = {igsid: status.result() for igsid, status in asked.items()}

    assert set(told.values()) == {200, 503}
    with client_of(stack.store.master.url) as master:
        left = [i for i in people if master.exists(f"pp:e:{{default:{i}}}")]
    assert [igsid for igsid in left if told[igsid] == 200] == []
    wait_until(lambda: erase(ADA) == 200, FAILS_OVER_WITHIN, "it erases again")


def test_an_erase_that_a_replica_has_not_confirmed_gets_no_receipt(stack) -> None:
    """However often it is tried; nor does a flush say that it has flushed."""
    cache_status(stack.one, ADA)
    [replica] = stack.store.replicas
    replica.pause()

    for _ in range(2):
        erased = stack.one.request("DELETE", f"/admin/profiles/{ADA}")
        flushed = stack.other.request("POST", "/admin/flush", json={"what": "all"})
        for promise in (erased, flushed):
            assert promise.status_code == 503
            assert promise.json()["code"] == "store_unavailable"
            assert promise.elapsed.total_seconds() < 1.0
    assert cache_status(stack.one, ADA).endswith("fwd=uri-miss; stored")


def test_sentinels_that_are_not_there_at_start_are_lived_without(stack) -> None:
    """The service says so, answers from Meta, and finds them when they come."""
    for sentinel in stack.store.sentinels:
        sentinel.stop()
    service = Service(**stack.settings)
    try:
        assert reasons(service) == ["store_unavailable"]
        assert cache_status(service, ADA).endswith("detail=store_unavailable")

        stack.store.sentinels[2].start()

        wait_until(lambda: reasons(service) == [], 5, "it has found the store")
        assert cache_status(service, ADA).endswith("fwd=uri-miss; stored")
    finally:
        service.stop()


def test_a_node_of_a_cluster_that_dies_takes_only_its_own_people(nodes: Nodes) -> None:
    """The others are hits as ever; a flush is not promised; it heals by itself."""
    victim = nodes.primaries[2]
    meta = SimulatedMeta()
    service = Service(
        PAGE_TOKEN=PAGE_TOKEN, GRAPH_URL=meta.url, STORE_URL=nodes.url, WORKERS="1"
    )
    people = [crowd(number) for number in range(30)]
    try:
        for igsid in people:
            assert cache_status(service, igsid).endswith("fwd=uri-miss; stored")
        victim.kill()

        for igsid in people:
            there = nodes.home(f"pp:e:{{default:{igsid}}}") is victim
            expected = "detail=store_unavailable" if there else "; hit"
            answer = service.get(f"/profiles/{igsid}")
            while there and answer.json().get("code") == "overloaded":
                time.sleep(SEAT_WITHOUT_STORE)  # Few may ask Meta in a second.
                answer = service.get(f"/profiles/{igsid}")
            assert expected in answer.headers["Cache-Status"]
        flushed = service.request("POST", "/admin/flush", json={"what": "all"})
        assert flushed.status_code == 503
        assert reasons(service) == ["store_unavailable"]

        victim.start()

        wait_until(lambda: reasons(service) == [], 15, "all nodes are there")
        assert service.flush()["matched"] < len(people)
        # Nobody keeps copies true on a Cluster, so that there are none.
        looks = [
            line for line in service.get("/metrics").text.splitlines() if NEAR in line
        ]
        assert looks and {line.split()[-1] for line in looks} == {"0.0"}
        log = service.log()
        assert (log.count('"store away"'), log.count('"store back"')) == (1, 1)
    finally:
        service.stop()
        meta.close()
        if not victim.is_running:
            victim.start()
        wait_until(nodes.agree, 20, "the Cluster is whole")
