"""Promises 5 and 7 while the store fails over, or loses a node."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import redis
import requests

from proxy.coordination.bulkhead import SEAT_WITHOUT_STORE
from tests.helpers.processes import (
    ADA,
    EVE,
    Service,
    crowd,
    wait_until,
)
from tests.helpers.redis_servers import ClusterNodes, SentinelGroup, client_of
from tests.helpers.stack import Stack, start_stack

NEAR = "profile_proxy_near_looks_total{"

FAILS_OVER_WITHIN = 15
"""Seconds. It takes two, but the three Sentinels may have to vote again."""


@pytest.fixture(scope="module")
def running(whole: SentinelGroup) -> Iterator[Stack]:
    """Two instances, a master with its replica, and three Sentinels."""
    # A call that hangs must outlive any fail-over.
    with start_stack(whole.url, services=({}, {}), graph_timeout=15.0) as stack:
        yield stack


@pytest.fixture
def stack(running: Stack, whole: SentinelGroup) -> Iterator[Stack]:
    """The stack with all servers running and an empty store; mended afterwards."""
    whole.mend()
    wait_until(lambda: is_ok(running), 10, "both services are ready")
    running.service.flush()
    running.meta.order("reset")
    yield running
    whole.mend()


def is_ok(stack: Stack) -> bool:
    return all(reasons(service) == [] for service in stack.services)


def reasons(service: Service) -> list[str]:
    answer = service.get("/readyz")
    assert answer.status_code == 200
    return list(answer.json()["reasons"])


def cache_status(service: Service, igsid: str) -> str:
    answer = service.get(f"/profiles/{igsid}")
    assert answer.status_code == 200, answer.text
    return str(answer.headers["Cache-Status"])


def fail_over(store: SentinelGroup, how: str) -> None:
    """Kill or pause the master, and wait until its replica is promoted."""
    old = store.master
    getattr(old, how)()
    has_moved = store.is_led_by_another_than
    wait_until(lambda: has_moved(old), FAILS_OVER_WITHIN, "another is master")


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_fail_over_in_mid_fetch_does_not_cost_an_answer(stack, whole, how: str) -> None:
    """All callers are answered, with at most one call by each instance."""
    stack.meta.person(ADA, wire="hang", times=2)
    with client_of(whole.url) as raw, ThreadPoolExecutor(16) as pool:
        raw.config_resetstat()
        leading = ask_for_ada(pool, stack.service)
        wait_until(lambda: entry_reads(raw) >= len(leading), 10, "all have joined")
        following = ask_for_ada(pool, stack.other)
        wait_until(lambda: entry_reads(raw) > len(leading), 10, "the others read, too")

        fail_over(whole, how)
        stack.meta.order("release")
        answers = [asked.result(30) for asked in leading + following]

    assert {answer.status_code for answer in answers} == {200}
    assert stack.meta.calls(ADA) <= 2
    wait_until(lambda: is_ok(stack), 5, "both have found the new master")
    cache_status(stack.service, EVE)
    assert "; hit" in cache_status(stack.other, EVE)


def ask_for_ada(
    pool: ThreadPoolExecutor, service: Service
) -> list[Future[requests.Response]]:
    return [pool.submit(service.get, f"/profiles/{ADA}") for _ in range(8)]


def entry_reads(raw: redis.Redis) -> int:
    """How many reads of entries the store has answered."""
    return int(raw.info("commandstats").get("cmdstat_mget", {}).get("calls", 0))


def test_readyz_reports_a_dead_master_until_the_fail_over(stack, whole) -> None:
    """Meanwhile callers are answered, though nothing is stored."""
    cache_status(stack.service, ADA)
    whole.master.kill()

    assert reasons(stack.service) == ["store_unavailable"]
    assert cache_status(stack.service, ADA).endswith("detail=store_unavailable")
    erased = stack.service.request("DELETE", f"/admin/profiles/{ADA}")
    assert (erased.status_code, erased.json()["code"]) == (503, "store_unavailable")

    wait_until(lambda: reasons(stack.service) == [], FAILS_OVER_WITHIN, "it is ready")
    assert "; hit" in cache_status(stack.service, ADA)


def test_acknowledged_erase_survives_a_fail_over(stack, whole) -> None:
    """No entry with a receipt from before the master's death comes back."""
    people = [crowd(number) for number in range(40)]
    for igsid in people:
        cache_status(stack.service, igsid)

    receipts = []
    for number, igsid in enumerate(people):
        if number == 30:
            [replica] = whole.replicas
            replica.pause()
        answer = stack.service.request("DELETE", f"/admin/profiles/{igsid}")
        if answer.status_code == 200:
            receipts.append(answer.json()["igsid"])
    whole.master.kill()
    replica.resume()
    wait_until(lambda: reasons(stack.service) == [], FAILS_OVER_WITHIN, "it is ready")

    assert receipts == people[:30]
    for igsid in receipts:
        assert stack.service.get(f"/admin/profiles/{igsid}").json()["entry"] is None


def test_acknowledged_erase_survives_an_ordered_fail_over(stack, whole) -> None:
    """The old master serves for a while after its replica has left it."""
    people = [crowd(number) for number in range(150)]
    for igsid in people:
        cache_status(stack.service, igsid)
    old = whole.master

    def erase(igsid: str) -> int:
        return stack.service.request("DELETE", f"/admin/profiles/{igsid}").status_code

    with whole.default_publish_period(), ThreadPoolExecutor(32) as pool:
        whole.order_fail_over()
        asked = {}
        for igsid in people:
            asked[igsid] = pool.submit(erase, igsid)
            time.sleep(0.02)
        has_moved = whole.is_led_by_another_than
        wait_until(lambda: has_moved(old), FAILS_OVER_WITHIN, "another is master")
    statuses = {igsid: erased.result() for igsid, erased in asked.items()}

    assert set(statuses.values()) == {200, 503}
    with client_of(whole.master.url) as master:
        left = [i for i in people if master.exists(f"pp:e:{{default:{i}}}")]
    assert [igsid for igsid in left if statuses[igsid] == 200] == []
    wait_until(lambda: erase(ADA) == 200, FAILS_OVER_WITHIN, "it erases again")


def test_erase_that_a_replica_has_not_confirmed_gets_no_receipt(stack, whole) -> None:
    """Not on a second try either; and a flush gets 503 too."""
    cache_status(stack.service, ADA)
    [replica] = whole.replicas
    replica.pause()

    for _ in range(2):
        erased = stack.service.request("DELETE", f"/admin/profiles/{ADA}")
        flushed = stack.other.request("POST", "/admin/flush", json={"what": "all"})
        for promise in (erased, flushed):
            assert promise.status_code == 503
            assert promise.json()["code"] == "store_unavailable"
            assert promise.elapsed.total_seconds() < 1.0
    assert cache_status(stack.service, ADA).endswith("fwd=uri-miss; stored")


def test_service_starts_without_sentinels_and_finds_them_later(stack, whole) -> None:
    """It reports that it is degraded, and answers from Meta."""
    for sentinel in whole.sentinels:
        sentinel.stop()
    service = Service(**stack.settings)
    try:
        assert reasons(service) == ["store_unavailable"]
        assert cache_status(service, ADA).endswith("detail=store_unavailable")

        whole.sentinels[2].start()

        wait_until(lambda: reasons(service) == [], 5, "it has found the store")
        assert cache_status(service, ADA).endswith("fwd=uri-miss; stored")
    finally:
        service.stop()


def test_dead_node_of_a_cluster_affects_only_its_own_people(
    nodes: ClusterNodes,
) -> None:
    """The others stay hits; a flush gets 503 until the node is back."""
    victim = nodes.primaries[2]
    people = [crowd(number) for number in range(30)]
    with ExitStack() as ending:
        ending.callback(wait_until, nodes.agree, 20, "the Cluster is whole")
        ending.callback(lambda: victim.is_running or victim.start())
        stack = ending.enter_context(start_stack(nodes.url, graph_timeout=5.0))
        service = stack.service
        for igsid in people:
            assert cache_status(service, igsid).endswith("fwd=uri-miss; stored")
        victim.kill()

        for igsid in people:
            is_on_victim = nodes.home(f"pp:e:{{default:{igsid}}}") is victim
            expected = "detail=store_unavailable" if is_on_victim else "; hit"
            answer = service.get(f"/profiles/{igsid}")
            while is_on_victim and answer.json().get("code") == "overloaded":
                time.sleep(SEAT_WITHOUT_STORE)  # Few calls to Meta a second.
                answer = service.get(f"/profiles/{igsid}")
            assert expected in answer.headers["Cache-Status"]
        flushed = service.request("POST", "/admin/flush", json={"what": "all"})
        assert flushed.status_code == 503
        assert reasons(service) == ["store_unavailable"]

        victim.start()

        wait_until(lambda: reasons(service) == [], 15, "all nodes are found")
        assert service.flush()["matched"] < len(people)
        # A Cluster sends no invalidations, so the near cache is off.
        reads = [
            line for line in service.get("/metrics").text.splitlines() if NEAR in line
        ]
        assert reads and {line.split()[-1] for line in reads} == {"0.0"}
        log = service.log()
        assert (log.count('"store away"'), log.count('"store back"')) == (1, 1)
